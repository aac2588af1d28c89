"""What a mathematical answer says, and whether it says what the reference says.

`extract` finds the answer in a completion, `notation` says what is written there, `cost` refuses what no machine should
compute, `comparison` and `equality` compare, the latter with math-verify behind it, and `judge` puts them together. The
process in which algebra runs under a deadline is that of `rewards.mathematics.answer`.
"""
