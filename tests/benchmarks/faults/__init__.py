"""A soak of faults: short runs on Ray, each with one random fault from outside, drawn from a seed.

Mistakes are what a user writes; faults are what happens to a run: signals, killed and frozen processes, disks, the
environment, damaged files. See docs/evidence/faults.md.
"""
