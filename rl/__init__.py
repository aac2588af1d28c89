"""Learning, in rooms; each may import those below it and none above:

cli, gym, commands, driver, run, learner, modality, compatibility, likelihood, algorithm, data; drawing stands beside.
"""
