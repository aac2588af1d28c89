"""docs/ports.md: what listens during a run is what the page says, on the interfaces that it says."""

from __future__ import annotations

import ipaddress
import os
import re
from pathlib import Path
from typing import Any

import psutil
import pytest

from cluster import joining
from configs.compose import compose
from rl.driver.train import train
from rl.run.callback import Callback
from tests.documentation import ROOT
from tests.rl.support.training import SMALL

LINE = re.compile(r"^\| `([\w.]+)` \|([^|]*)\| (all|node|loopback) \|", re.MULTILINE)


class Listening(Callback):
    """Who listens where after an update."""

    def __init__(self) -> None:
        self.found: set[tuple[str, str]] = set()

    def on_update(self, update: int, row: Any) -> None:
        driver = psutil.Process()
        for process in (driver, *driver.children(recursive=True)):
            try:
                name = "driver" if process == driver else name_of(process)
                listening = [c.laddr.ip for c in process.net_connections("inet") if c.status == psutil.CONN_LISTEN]
            except psutil.NoSuchProcess:
                continue
            self.found |= {(name, interface(address)) for address in listening}


def name_of(process: psutil.Process) -> str:
    command = process.cmdline() or [process.name()]
    named = re.match(r"ray::(\w+)", command[0])  # what Ray calls its processes, soon after they have started
    if named is not None:
        return named[1]
    scripts = [Path(word).name for word in command if word.endswith(".py")]
    name = scripts[0] if scripts else Path(command[0]).name
    return "IDLE" if name == "default_worker.py" else name


def interface(address: str) -> str:
    parsed = ipaddress.ip_address(address)
    return "all" if parsed.is_unspecified else "loopback" if parsed.is_loopback else "node"


@pytest.mark.slow
def test_what_listens_is_on_the_page(cluster: None, tmp_path: Path) -> None:
    lines = LINE.findall((ROOT / "docs/ports.md").read_text())
    written = {(process, interface) for process, _, interface in lines}
    # another Ray of the machine may have the fixed ports, and the run the workers that were started in advance
    may_be_absent = {(process, interface) for process, what, interface in lines if "port " in what or process == "IDLE"}
    listening = Listening()
    options = ["run.name=x", f"run.folder={tmp_path}", "run.updates=1", "cluster.learners=2", "run.checkpoint_every=0"]
    train(compose([*SMALL, *options]), callbacks=[listening])
    own = {("driver", "loopback")}  # of a rank that another test has had in this process
    assert listening.found - own - written == set()
    assert written - listening.found <= may_be_absent
    assert ("LearnerActor", "loopback") in listening.found
    assert os.environ["RAY_AUTH_MODE"] == "token"  # Ray's own default for what is started here


def test_a_run_starts_its_own_ray_though_there_is_another_on_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without `local` Ray joins the latest cluster that someone started there, or the one that RAY_ADDRESS names."""
    started: list[dict[str, Any]] = []
    monkeypatch.setattr(joining.ray, "init", lambda **options: started.append(options))
    joining._join(None, {})
    joining._join("auto", {})
    assert [options["address"] for options in started] == ["local", "auto"]
