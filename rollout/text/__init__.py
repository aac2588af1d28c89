"""Texts: the canvas, which positions a round reveals, the sampler with its cache, proposals, and the rollout worker.

Likelihoods of what was sampled are in `rl.likelihood`. Imports `models` and what the two kinds of rollout share.
"""
