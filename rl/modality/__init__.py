"""What differs between texts and images, as one object: prompts, samplers, policies, likelihoods, what is shown.

Everything above asks the `protocol` and never what is generated. Imports the rooms below: compatibility, likelihood,
algorithm, data, drawing.
"""
