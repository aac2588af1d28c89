"""What a run leaves behind: its folder, checkpoints, metrics, scored tickets, evaluations, and what is shown meanwhile.

How tickets are generated does not belong here. Imports `rl.learner` and what lies below.
"""
