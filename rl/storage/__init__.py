"""Writing to disks and terminals that may refuse: whole files or none, one message for what failed.

Knows no run. Imports nothing of ours.
"""
