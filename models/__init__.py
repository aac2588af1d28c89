"""The networks: text and image policies, their families, loading, LoRA and export.

Nothing here knows about rollouts, rewards or training; `models` imports nothing of ours.
"""
