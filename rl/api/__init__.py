"""The library: what `from rl import ...` gives, one verb a file, on plain texts, images and arrays.

Nothing is computed here: each function hands its arguments to the code that a run uses, so that a notebook and a run
cannot differ. Modules load torch, Ray and DeepSpeed inside their functions: importing a name costs nothing.
"""
