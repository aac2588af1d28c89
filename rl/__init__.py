"""Learning: likelihoods, objectives, advantages, the learner, the loop, checkpoints, evaluation, the command line."""
