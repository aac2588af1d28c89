"""Rewards of any picture: how large its file is, whether it shows its digit, how well it fits its prompt, whether it is
decent, and what published networks think of it.

Not here: what a picture is (`rewards.picture`), how a reward becomes differentiable (`rewards.differentiable`), where
published weights lie (`rewards.checkpoints`), the text in a picture (`rewards.reading`), objects (`rewards.geneval`)
and the world of shapes with its verifier (`rewards.scenes`). It may import the first three, no registry, scorer or
other room.
"""
