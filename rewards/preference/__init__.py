"""What a preference model of texts reads of a sample, and the reward that it is.

Training is `rl.preference`, which forms its texts by the same code. Not here: the similarity of pictures and prompts
(`rewards.images.dual_encoder`), and what a model's folder records (`rewards.model_folder`).
"""
