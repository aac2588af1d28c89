"""How log-probabilities come about: replays of recorded traces, denoising losses, reward gradients.

Which rows a network scores and what they mean; losses do not belong here. Imports `rl.algorithm` and `rl.data`.
"""
