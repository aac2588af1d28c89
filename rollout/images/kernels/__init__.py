"""Gaussian denoising steps of image models: noise levels, transitions, densities, and which steps draw noise.

The sampler and the learner use one `GaussianSteps` object, so a recorded step is scored as it was drawn. Networks,
guidance and trajectories do not belong here.
"""
