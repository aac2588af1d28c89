"""The judge of a run on Ray: its owner, the rewards' knowledge of where it is, and the driver's look at it.

The owner is placed by the options, and Ray starts it again where its process or node is lost; it starts the server. A
server that is started again has another port, or is on another node, so every reward worker keeps a file of its own up
to date that its scoring process reads before each request.
"""

from __future__ import annotations

import json
import os
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ray
from ray.util import get_node_ip_address

from cluster.joining import ClusterError
from models.files import local_folder
from models.identity import identity
from rewards.judge.terms import JudgeError
from rewards.options import JudgeOptions

if TYPE_CHECKING:  # with what it imports, which only runs with a judge need
    from rewards.judge.server import Served

LOOK_SECONDS = 1.0
ASK_SECONDS = 10.0
FOLDER = "judge"
"""Of a run: verdicts, what the server prints, where it is."""


class JudgeActor:
    """Owns the server."""

    def __init__(self, options: JudgeOptions, log: Path | None, here: bool = False) -> None:
        """
        Args:
            here: whether nobody outside of this machine asks it.
        """
        from rewards.judge.server import Server

        host = "127.0.0.1" if here or _alone() else get_node_ip_address()
        self.server = Server(options, served_name(options), host, log)
        self.server.start()

    def ready(self) -> None:
        """Until it answers. Raises JudgeError."""
        self.server.wait()

    def served(self) -> Served:
        return self.server.served()


def served_name(options: JudgeOptions) -> str:
    """Under which the model answers: with what its folder holds, so that verdicts are never those of other weights."""
    folder = local_folder(options.model)
    return options.model if folder is None else f"{folder.name}-{identity(folder)[:12]}"


def _alone() -> bool:
    return sum(node["Alive"] for node in ray.nodes()) == 1


class Whereabouts:
    """A file that says where the judge is, for the scoring process beside it."""

    def __init__(self, asked: Callable[[], Served], folder: Path | None, name: str) -> None:
        """
        Args:
            folder: of the run; None is a temporary one.
            name: of the reward worker.
        """
        self._asked = asked
        folder = Path(tempfile.mkdtemp(prefix="denoiserl-judge-")) if folder is None else folder
        self.file = folder / f"where-{name}.json"
        self._said: str | None = None
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Returns once the judge answers, or at once where it is followed already. Raises JudgeError: it will not."""
        if self._thread is not None and self._thread.is_alive():
            return
        while (served := self._look()) is None or served.url is None:
            if served is not None and served.gave_up:
                raise JudgeError(served.gave_up)
            time.sleep(LOOK_SECONDS)
        self._thread = threading.Thread(target=self._follow, daemon=True, name="whereabouts")
        self._thread.start()

    def _follow(self) -> None:
        while True:
            self._look()
            time.sleep(LOOK_SECONDS)

    def _look(self) -> Served | None:
        try:
            served = self._asked()
        except Exception:  # its owner is being started again, or is asked too much of: what was said holds
            return None
        self._say(served)
        return served

    def _say(self, served: Served) -> None:
        here = {} if served.url is None else {"url": served.url, "model": served.model, "key": served.key}
        if (text := json.dumps(here)) == self._said:
            return
        self.file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        unfinished = self.file.with_suffix(".unfinished")
        with open(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            file.write(text)
        unfinished.replace(self.file)
        self._said = text


def asked_on_ray(name: str) -> Callable[[], Served]:
    """By the owner's name: Ray warns on the terminal of an actor that is made of a handle and may be made again."""

    def asked() -> Served:
        owner: Any = ray.get_actor(name)
        return ray.get(owner.served.remote(), timeout=ASK_SECONDS)

    return asked


class Watch:
    """What the driver sees of the judge, without waiting for it."""

    def __init__(self, judge: Any | None, note: Callable[[str], None]) -> None:
        self._judge, self._note = judge, note
        self._under_way: ray.ObjectRef | None = None
        self._next = 0.0
        self._seen: Served | None = None

    def look(self) -> None:
        """Raises ClusterError: it is not started any more."""
        if self._judge is None or time.monotonic() < self._next:
            return
        if self._under_way is None:
            self._under_way = self._judge.served.remote()
            return
        if not ray.wait([self._under_way], timeout=0)[0]:
            return
        reference, self._under_way = self._under_way, None
        self._next = time.monotonic() + LOOK_SECONDS
        try:
            served = ray.get(reference)
        except ray.exceptions.RayActorError:
            self._note("the owner of the judge died; it is started again")
            self._next = time.monotonic() + ASK_SECONDS
            return
        before, self._seen = self._seen, served
        if served.gave_up:
            raise ClusterError(served.gave_up)
        if before is not None and served.starts > before.starts:
            self._note(f"the judge is started again: {served.ended or 'it ended'}; rewards wait for it")
        if before is not None and before.url is None and served.url is not None:
            self._note("the judge answers again")
