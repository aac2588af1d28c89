"""Where processes run and how weights travel between them: placement, actor groups, weight transport.

Knows Ray, not learning: `cluster` imports nothing of ours.
"""
