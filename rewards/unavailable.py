"""How a reward function says that what it asks does not answer, which is no property of any sample."""

from __future__ import annotations


class Unavailable(Exception):
    """The service behind a reward is down, and the function has waited as long as it may.

    No sample is tried again one by one, as after other exceptions: all that were asked about are lost, with the kind
    `unavailable` and the text of this.
    """
