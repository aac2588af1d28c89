"""Errors that the user can mend: the command line prints their text without a traceback and exits with code 2."""

from __future__ import annotations

RUN_FOLDER = "run folder: "
"""Begins the note (PEP 678) by which an exception says which run it ended."""


class UserError(ValueError):
    """The message names the cause and the fix."""


class ConfigError(UserError):
    """The configuration cannot be used: an unknown name, a value of the wrong type, an impossible combination."""
