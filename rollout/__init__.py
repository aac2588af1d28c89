"""How samples are made and recorded: the trajectory contract, noise, branching, options; `text` and `images` use them.

What a sample is worth (`rewards`) and what is done with it (`rl`) do not belong here; `rollout` imports only `models`.
"""
