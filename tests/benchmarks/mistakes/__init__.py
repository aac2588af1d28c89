"""A soak of silent mistakes: short runs with one random mistake each, which must end right or be refused by name.

python -m tests.benchmarks.mistakes --runs 100 --seed 0
python -m tests.benchmarks.mistakes --seed 0 --only 37

`configuration`, `combinations`, `rows`, `references`, `rewarding`, `resuming` and `folders` draw the mistakes; `judge`
says what became of one; `workshop` runs the system; `truth` computes again, by itself, what a run must have found.
"""
