"""Rewards behind a URL: one HTTP client that waits, tries again and gives up by name, and OpenRLHF's reward models."""
