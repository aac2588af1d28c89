"""A run whose reward has no mark that means success: rewards everywhere, and no solve rate anywhere."""

from __future__ import annotations

import io
import json
import math
from pathlib import Path

import pytest
from rich.console import Console

from configs.compose import compose
from configs.errors import UserError
from models.tiny.create import main as create
from rl import open_run
from rl.driver.in_process import train_in_process
from tests.rl.support.training import SMALL, metrics


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> tuple[Path, str]:
    """Its folder, and what it said."""
    folder = tmp_path_factory.mktemp("runs")
    create("block", str(folder / "block"))
    options = [f"model.path={folder / 'block'}", f"run.folder={folder}", "run.name=mine", "run.updates=1"]
    options += ["reward.terms.answer.function=tests.rl.support.rewards.logged_share_of_ones", "reward.solved_at=null"]
    options += ["rollout.prompts_per_update=4", "rollout.prompts_per_ticket=2", "run.checkpoint_every=0"]
    options += ["evaluation.every=1", "data.evaluation.size=4", "evaluation.prompts_per_ticket=3"]
    said = io.StringIO()
    train_in_process(compose([*SMALL, *options]), Console(file=said, width=400), shown=True)
    return folder / "mine", said.getvalue()


def test_nothing_is_said_of_solving(run):
    folder, said = run
    assert "solve" not in said
    assert "held out after update 1: greedy reward 0." in said
    assert "greedy, reward" in said
    (row,) = metrics(folder)
    assert "reward/mean" in row
    text = "".join((folder / name).read_text() for name in ("metrics.jsonl", "evaluations.jsonl", "summary.json"))
    assert "solve" not in text
    assert "eval_before" not in text
    assert (folder / "reward_curve.png").stat().st_size > 10_000


def test_the_gain_in_reward_is_that_of_the_kept_rewards(run):
    folder, _ = run
    for kind in ("greedy", "sampled"):
        outcomes = open_run(folder).outcomes(kind, of="reward")
        assert outcomes.shape == (4, 2)
        gain = json.loads((folder / "summary.json").read_text())["held_out"][kind]["reward"]["gain"]
        assert gain == pytest.approx((outcomes[1] - outcomes[0]).mean())
    with pytest.raises(UserError, match="nothing is counted as solved: of=reward or answer"):
        open_run(folder).outcomes()
    assert not [name for name in open_run(folder).evaluations if name.startswith(("rewards/", "terms/"))]


def test_what_reward_functions_log_is_in_the_metrics_weighed_by_samples(run):
    """Of evaluations, tickets of three and of one sample; a value that is no number is told, not averaged."""
    folder, said = run
    (row,) = metrics(folder)
    assert row["reward/metric/seen"] == 8.0  # two prompts a ticket, four samples each
    assert "reward/metric/ratio" not in row
    assert "update 0: 2 values of log_metric('ratio') are not finite, and not in its mean" in said
    seen = open_run(folder).evaluations["evaluation/greedy/metric/seen"]
    assert seen.tolist() == [(3 * 3 + 1 * 1) / 4] * 2
    assert not math.isnan(row["reward/mean"])
