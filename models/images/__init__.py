"""Image models out of diffusers' pipelines: families, loading, prompts, the autoencoder, export, values.

Schedules and kernels are in `rollout.images`. Imports the files of `models`.
"""
