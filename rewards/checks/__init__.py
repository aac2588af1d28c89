"""Rewards that a rule decides: countdown, Sudoku, JSON, tags, lengths, texts, choices, instructions in IFEval's form.

An answer that cannot be read is 0, and told as malformed; what the data lack, or say wrongly, raises. docs/checks.md
has what each pays, and how it is hacked. No network, no model, and no code of an answer's is run.
"""
