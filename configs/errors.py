"""Errors that the user can mend: the command line prints their text without a traceback and exits with code 2."""

from __future__ import annotations


class UserError(ValueError):
    """The message names the cause and the fix."""


class ConfigError(UserError):
    """The configuration cannot be used: an unknown name, a value of the wrong type, an impossible combination."""
