"""One rank's update: micro-batches, the DeepSpeed engine, the optimizer step, parity, the old policy, the value model.

Processes, tickets and rewards do not belong here. Imports `rl.modality` and what lies below.
"""
