"""Pictures: learning curves, pages of images, the unmasking of a text on the terminal.

What is drawn comes as arrays and trajectories. Imports nothing else of `rl`.
"""
