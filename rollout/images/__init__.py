"""Images: guidance, chains of denoising steps, candidates of single steps, and the rollout worker.

The mathematics of one step is in `kernels`. Imports `models` and what the two kinds of rollout share.
"""
