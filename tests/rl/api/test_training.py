"""`rl.train`: callbacks see what the folder holds, and end a run as its last update would have."""

from __future__ import annotations

import re
import shutil

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from configs.errors import ConfigError
from rl import Callback, compose, open_run, train
from tests.documentation import ROOT
from tests.rl.support.training import SMALL

BASE = [*SMALL, "run.updates=4", "evaluation.every=3", "data.evaluation.size=4", "evaluation.samples=0"]


class Seen(Callback):
    def __init__(self, last: int) -> None:
        self.last = last
        self.events: list[tuple] = []

    def on_start(self, folder, first_update):
        self.events.append(("start", folder.name, first_update))

    def on_update(self, update, metrics):
        self.events.append(("update", update, metrics["reward/mean"]))
        return update == self.last

    def on_evaluation(self, update, metrics):
        self.events.append(("evaluation", update, metrics["evaluation/greedy/solve_rate"]))

    def on_checkpoint(self, update, folder):
        self.events.append(("checkpoint", update, folder.is_dir()))

    def on_end(self, summary):
        self.events.append(("end", summary["steps"]))


@pytest.fixture(scope="module")
def ended_early(tmp_path_factory):
    seen, functions = Seen(last=1), []
    config = compose(*BASE, f"run.folder={tmp_path_factory.mktemp('runs')}", "run.name=early")
    run = train(config, [seen, lambda update, metrics: functions.append(update)], verbose=False)
    return config, run, seen, functions


def test_a_callback_sees_everything_and_ends_the_run(ended_early):
    _, run, seen, functions = ended_early
    assert [event[:2] for event in seen.events] == [
        ("start", "early"),
        ("evaluation", 0),
        ("update", 0),
        ("update", 1),
        ("evaluation", 2),
        ("checkpoint", 2),
        ("end", 2),
    ]
    assert functions == [0, 1]
    assert [event[2] for event in seen.events if event[0] == "update"] == run.metrics["reward/mean"].tolist()
    solved = run.evaluations["evaluation/greedy/solve_rate"]
    assert [event[2] for event in seen.events if event[0] == "evaluation"] == solved.tolist()
    assert run.finished
    assert run.updates == 2
    assert [each.update for each in run.checkpoints] == [2]


def test_the_same_call_goes_on_where_it_ended(ended_early, tmp_path):
    _config, run, *_ = ended_early
    shutil.copytree(run.path, tmp_path / "copies" / "early")  # another test reads the original
    seen = Seen(last=99)
    again = train(compose(*BASE, f"run.folder={tmp_path / 'copies'}", "run.name=early"), seen, verbose=False)
    assert seen.events[0] == ("start", "early", 2)
    assert again.updates == 4
    assert again.finished
    whole = train(compose(*BASE, f"run.folder={tmp_path}", "run.name=whole"), verbose=False)
    assert whole.metrics["reward/mean"].tolist() == again.metrics["reward/mean"].tolist()
    for one, other in ((whole.weights(4), again.weights(4)),):
        assert one.checksum == other.checksum


def test_progress_is_printed_or_not(tmp_path, capfd):
    config = compose(*BASE, f"run.folder={tmp_path}", "run.updates=1", "evaluation.every=0", "run.name=loud")
    train(config)
    assert "loud  update 1/1" in capfd.readouterr().out
    train(
        compose(*BASE, f"run.folder={tmp_path}", "run.updates=1", "evaluation.every=0", "run.name=quiet"), verbose=False
    )
    printed = capfd.readouterr()
    assert "update 1/1" not in printed.out


def test_what_cannot_run_is_refused():
    with pytest.raises(ConfigError, match="clip=-1"):
        train(compose("quickstart", "algorithm.clip=-1"))
    with pytest.raises(ValueError, match=r"train\(..., ray=True\) starts more"):
        train(compose("quickstart", "cluster.learners=2"))
    with pytest.raises(ValueError, match=r"subclass of rl.Callback"):
        train("quickstart", callbacks=[3])  # type: ignore[list-item]
    with pytest.raises(ValueError, match="is not a run folder"):
        open_run("/nowhere")


@pytest.mark.slow
def test_on_ray_it_is_the_same_run(cluster, ended_early, tmp_path):
    _config, run, *_ = ended_early
    seen = Seen(last=1)
    words = [*BASE, f"run.folder={tmp_path}", "run.name=early"]
    on_ray = train(compose(*words), seen, ray=True, verbose=False)
    assert [event[0] for event in seen.events][-2:] == ["checkpoint", "end"]
    assert on_ray.updates == 2
    assert on_ray.metrics["reward/mean"].tolist() == run.metrics["reward/mean"].tolist()[:2]


def test_tensorboard_has_the_whole_run_also_when_it_went_on(ended_early, tmp_path):
    _config, run, *_ = ended_early
    shutil.copytree(run.path, tmp_path / "early")
    train(compose(*BASE, f"run.folder={tmp_path}", "run.name=early"), verbose=False)
    board = EventAccumulator(str(tmp_path / "early" / "tensorboard"), size_guidance={"tensors": 0}).Reload()
    assert [each.step for each in board.Scalars("reward/mean")] == [0, 1, 2, 3]
    evaluated = open_run(tmp_path / "early").evaluations
    for end in ("", "_low", "_high"):
        name = f"evaluation/greedy/solve_rate{end}"
        found = [(each.step, each.value) for each in board.Scalars(name)]
        assert found == [(u, pytest.approx(value)) for u, value in evaluated[name].items()]
    assert [each.step for each in board.Tensors("samples/greedy")] == list(evaluated.index)
    assert "_hparams_/session_start_info" in board.Tags()["tensors"] + list(board.summary_metadata)
    assert not [name for name in evaluated if name.startswith("texts/")]


def test_every_number_is_explained(ended_early):
    """docs/metrics.md has a row for each name, of a run and of the code; words in capitals stand for other names."""
    _config, run, *_ = ended_early
    page = (ROOT / "docs/metrics.md").read_text()
    rows = [name for row in re.findall(r"^\| (`[^|]+) \|", page, re.M) for name in row.split(", ")]
    patterns = [re.sub("[A-Z]{2,}", "[^/]+", row.strip("`")) for row in rows]
    assert len(patterns) == len(set(rows))
    names = {*run.metrics, *run.evaluations} - {"identity"}
    where = [*(ROOT / "rl/algorithm").glob("*.py"), *(ROOT / "rl/learner").glob("*.py"), ROOT / "rl/run/folder.py"]
    literal = re.compile(r'"((?:ratio|logp|nft|bound|preference|value|learner|groups|rollout|reward)/[a-z_]+)"')
    names |= {name for file in where for name in literal.findall(file.read_text())} - {"reward/metric"}
    assert len(names) > 50
    assert [name for name in sorted(names) if not any(re.fullmatch(pattern, name) for pattern in patterns)] == []
