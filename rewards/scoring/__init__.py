"""The process in which reward functions run: what is sent there, what comes back, and what it prints."""
