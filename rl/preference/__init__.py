"""Reward models trained on preference pairs: which pairs, how they are split, the training of either kind, and how good
the model is on pairs that it has not seen.

What a model reads and how it scores lies in `rewards`, so that training and reward are the same code. Imports
`rl.run` for intervals, and what lies below.
"""
