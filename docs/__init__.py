"""The documentation, and in `generate` what draws and writes the parts of it that follow from the code."""
