"""The mathematics of decisions: scores, ratios, objectives, advantages, denominators, credit. Arrays in, arrays out.

Where log-probabilities come from (`rl.likelihood`) and what is done with a gradient (`rl.learner`) do not belong here.
Imports `rl.data` at most.
"""
