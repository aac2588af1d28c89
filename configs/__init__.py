"""The configuration: `schema.py` assembles every option with its default, the YAML groups override them.

Each package declares its own options (`models/options.py`, ...) and `algorithm_options` those of an algorithm; a
default therefore lives in exactly one place.
"""
