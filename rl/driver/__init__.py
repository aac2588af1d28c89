"""The loop and its processes: schedule, generation, learners, actors, the run on Ray and the run in one process.

Mathematics and networks do not belong here. Imports every room but `rl.commands` and `rl.gym`.
"""
