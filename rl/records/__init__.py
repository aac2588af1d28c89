"""Reading a run folder, of a run that has ended, is under way or has crashed; nothing here writes into one.

Loads neither Ray nor DeepSpeed, and torch only where weights are asked for. Imports `rl.run` and what lies below.
"""
