"""What a mathematical answer says, and whether it says what the reference says.

`claims` finds what a completion claims, `extract` takes its markup off, `notation` says what is written there, `cost`
refuses what no machine should compute, `words` and `comparison` compare texts and numbers, `equality` and `sets` the
rest with math-verify behind them, and `judge` puts them together. The process in which algebra runs under a deadline is
that of `rewards.mathematics.answer`.
"""
