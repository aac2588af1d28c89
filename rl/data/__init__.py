"""What goes in: rows of files, data sets and generators; the problems and prompts they become; tickets and seeds.

How a prompt becomes tokens of a particular network is the modality's business. Imports nothing else of `rl`.
"""
