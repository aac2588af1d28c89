"""Code of a model in a sandbox: what is run, under which isolation and limits, and what its answers are worth.

The program sees its own source and its input, never what is expected of it: answers come out as data and are compared
here. What lies in `inside` runs in the sandbox and knows nothing of the rest.
"""
