"""What a mathematical answer says, and whether it says what the reference says.

`extract` finds the answer in a completion, `notation` says what is written there, `cost` refuses what no machine should
compute, and `equality` compares, with math-verify behind it, in a process of its own. What is paid for an answer is
said by `rewards.math_answer`.
"""
