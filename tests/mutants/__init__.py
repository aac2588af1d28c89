"""Mutation testing: do the tests of the formulas notice when a formula is broken?

`make mutants` draws a seeded sample of small changes (`mutations`) to the modules of `table`, runs the tests of a
module against each in a forked process (`runner`), and reports who survived (`report`). Survivors that change nothing
are listed with the reason in `accepted.yaml`.
"""
