"""What a person types: evaluation, samples, export, pairs, the catalogue of algorithms, preparation.

`rl.cli` reads the arguments; the gym is a room above. Imports `rl.driver` and what lies below.
"""
