"""A signal ends a run with its last completed update, wherever the next one is; it goes on as if it had never ended."""

from __future__ import annotations

import io
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

import rl.driver.loop
import rl.learner.learner
from configs.compose import compose
from rl.driver.in_process import train_in_process
from tests.rl.storage.test_disk import no_file_above
from tests.rl.support.training import SMALL, assert_same_weights, metrics

RUN = ["run.updates=2", "run.checkpoint_every=2", "rollout.prompts_per_update=2", "data.train.size=8", "run.name=mine"]
SEVERAL_STEPS = ["algorithm.minibatches=2", "algorithm.epochs=2"]
EVALUATED = ["evaluation.every=1", "data.evaluation.size=2"]


def run(model: Path, folder: Path, *overrides: str) -> str:
    """What was said."""
    said = io.StringIO()
    options = [*SMALL, *RUN, f"model.path={model}", f"run.folder={folder}", *overrides]
    train_in_process(
        compose(options),
        Console(file=said, width=1000),
    )
    return said.getvalue()


def interrupted(model: Path, folder: Path, *overrides: str, number: signal.Signals = signal.SIGINT) -> str:
    said = io.StringIO()
    options = [*SMALL, *RUN, f"model.path={model}", f"run.folder={folder}", *overrides]
    with pytest.raises(KeyboardInterrupt):
        train_in_process(compose(options), Console(file=said, width=1000))
    assert said.getvalue().splitlines()[-1].startswith(number.name)
    return said.getvalue()


@pytest.fixture(scope="module")
def straight(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that nothing ended."""
    folder = tmp_path_factory.mktemp("straight")
    run(model, folder, *SEVERAL_STEPS, *EVALUATED)
    return folder / "mine"


def at_call(count: int, function: Callable, number: signal.Signals = signal.SIGINT) -> Callable:
    """The function, which sends a signal behind its call of that number."""
    calls = []

    def counted(*arguments: object, **options: object) -> object:
        result = function(*arguments, **options)
        calls.append(1)
        if len(calls) == count:
            os.kill(os.getpid(), number)
        return result

    return counted


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "checkpoints").iterdir())


def test_between_optimizer_steps_the_completed_update_is_what_remains(
    model: Path, straight: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two of the four steps of the second update have moved the weights."""
    with monkeypatch.context() as patch:
        patch.setattr(rl.learner.learner, "optimizer_step", at_call(6, rl.learner.learner.optimizer_step))
        said = interrupted(model, tmp_path, *SEVERAL_STEPS, *EVALUATED)
    assert names(tmp_path / "mine") == ["u000001"]
    assert f"the same command goes on from {tmp_path}/mine/checkpoints/u000001" in said
    assert "resuming after update 1" in run(model, tmp_path, *SEVERAL_STEPS, *EVALUATED)
    assert_same_weights(tmp_path / "mine", straight, update=2)
    assert metrics(tmp_path / "mine") == metrics(straight)
    assert not list(tmp_path.glob(".*"))  # no lock either


def test_an_update_that_only_waits_for_its_evaluation_is_completed(
    model: Path, straight: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluate = at_call(2, rl.driver.loop.evaluate, signal.SIGTERM)
    monkeypatch.setattr(rl.driver.loop, "evaluate", evaluate)
    interrupted(model, tmp_path, *SEVERAL_STEPS, *EVALUATED, number=signal.SIGTERM)
    assert names(tmp_path / "mine") == ["u000001"]
    assert metrics(tmp_path / "mine") == metrics(straight)[:1]


def test_a_full_disk_at_the_signal_is_said(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rl.learner.learner, "optimizer_step", at_call(2, rl.learner.learner.optimizer_step))
    with no_file_above(20_000):
        said = interrupted(model, tmp_path)
    assert f"the last completed update could not be written: cannot write {tmp_path}/mine/checkpoints/u000001: " in said
    assert names(tmp_path / "mine") == []


def test_before_the_first_update_is_done_there_is_nothing_to_keep(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rl.learner.learner, "optimizer_step", at_call(1, rl.learner.learner.optimizer_step))
    assert "the same command begins anew, since there is no checkpoint yet" in interrupted(model, tmp_path)
    assert not (tmp_path / "mine/checkpoints").exists()


def test_a_state_that_is_too_large_for_snapshots_is_said_at_the_start(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rl.learner.learner, "optimizer_step", at_call(2, rl.learner.learner.optimizer_step))
    said = interrupted(model, tmp_path, "run.snapshot_gib=0", "run.checkpoint_every=1")
    assert "more than run.snapshot_gib=0: a signal ends this run at its newest checkpoint" in said
    assert names(tmp_path / "mine") == ["u000001"]


def test_checkpoints_of_snapshots_are_those_that_learners_write(model: Path, straight: Path, tmp_path: Path) -> None:
    run(model, tmp_path, *SEVERAL_STEPS, *EVALUATED, "run.snapshot_gib=0")
    ours, theirs = (folder / "checkpoints/u000002" for folder in (straight, tmp_path / "mine"))
    files = {path.name for path in ours.iterdir()}
    assert files == {path.name for path in theirs.iterdir()}
    for name in files - {"MANIFEST.json"}:
        assert (ours / name).read_bytes() == (theirs / name).read_bytes()
