"""The networks: `text` and `images`, the embedded `tiny` ones, and what they share: files, LoRA, options, the policy.

Nothing here knows about rollouts, rewards or training; `models` imports nothing of ours.
"""
