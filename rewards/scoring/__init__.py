"""Scoring: what is asked and answered, the child process in which reward functions run, and what it prints."""
