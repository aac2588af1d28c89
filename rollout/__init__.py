"""How samples are made and recorded: the trajectory contract, kernels, samplers and the rollout worker.

What a sample is worth (`rewards`) and what is done with it (`rl`) do not belong here; `rollout` imports only `models`.
"""
