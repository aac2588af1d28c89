"""Rewards of any picture: how large its file is, whether it shows its digit, how well it fits its prompt.

Not here: what a picture is (`rewards.picture`), how a reward becomes differentiable (`rewards.differentiable`), and the
world of shapes with its verifier (`rewards.scenes`). It may import the first two, no registry, scorer or other room.
"""
