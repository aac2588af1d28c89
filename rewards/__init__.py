"""What a sample is worth: verifiers, the registry, and the worker that runs them under a deadline.

Reward functions see prompts, completions and dataset columns, never tensors of the policy; the differentiable ones see
pictures as tensors. `rewards` imports nothing of ours.
"""
