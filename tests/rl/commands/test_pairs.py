"""`denoiserl pairs`: what it chooses, what it refuses, and that what it writes is what training reads."""

from __future__ import annotations

import io
import json
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from configs.compose import compose
from configs.schema import Config, SourceKind, SourceOptions
from models.tiny.create import main as create
from rewards.registry import resolve
from rl.commands.pairs import Tally, best_and_worst, report
from rl.data.image_columns import located, pixels
from rl.data.problems import open_source
from rl.data.prompts import PerturbedSource
from rl.driver.processes import RunFailed
from rl.modality.choice import modality_of
from rollout.worker import Completions
from tests.documentation import commands
from tests.rl.support.command_line import CommandLine

NAN = float("nan")
COMMANDS = [command for command in commands("docs/preferences.md") if command.startswith("denoiserl pairs ")]
TEXT = ["recipe=quickstart", "rollout.prompts_per_update=8", "rollout.prompts_per_ticket=8", "data.train.size=16"]


@pytest.mark.parametrize(
    ("rewards", "others", "expected"),
    [
        ([0.0, 1.0, 0.5], None, (1, 0)),
        ([NAN, 1.0, 0.5], None, (1, 2)),
        ([1.0, 1.0, 0.0, 0.0], None, (0, 2)),
        ([0.0, 1.0], [0.5, 0.25, NAN], (1, 1)),
        ([NAN, NAN], [0.0, 1.0], None),
        ([0.0, 1.0], [NAN, NAN], None),
    ],
)
def test_the_best_is_chosen_and_the_worst_rejected(
    rewards: list[float], others: list[float] | None, expected: tuple[int, int] | None
) -> None:
    assert best_and_worst(np.array(rewards), np.array(others or rewards)) == expected


def test_the_policy_sees_the_perturbed_prompt_and_rewards_the_own(tmp_path: Path) -> None:
    create("block", str(tmp_path / "model"))
    (tmp_path / "rows.jsonl").write_text('{"prompt": "one two three", "answer": 5}\n')
    options = SourceOptions(
        SourceKind.file, str(tmp_path / "rows.jsonl"), perturbed="{{ prompt.split() | reverse | join(' ') }}"
    )
    modality = modality_of(compose(["recipe=quickstart", f"model.path={tmp_path / 'model'}"]).config)
    source = PerturbedSource(open_source(options), modality)
    seen = modality.tokenizer.decode(source.encoded(0), skip_special_tokens=True)
    assert seen == "three two one"
    assert source.columns([0], 2) == (["one two three"] * 2, {"prompt": ["one two three"] * 2, "answer": [5, 5]})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--output", "pairs.json", "--gap", "1"], "give it a name that ends in .jsonl"),
        (["--output", "nowhere/pairs.jsonl", "--gap", "1"], "its folder does not exist"),
        (["--output", "pairs.jsonl", "--gap", "0"], "choose a gap above 0"),
        (
            ["algorithm=sft", "rollout.group_size=1", "--output", "pairs.jsonl", "--gap", "1"],
            "leaves nothing to choose",
        ),
        (["data.train.perturbed='{{ easier }}'", "--output", "pairs.jsonl", "--gap", "1"], "'easier' is undefined"),
    ],
)
def test_unusable_arguments(
    denoiserl: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    assert message in denoiserl.refuses("pairs", *TEXT, *arguments)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("there", ["pairs.jsonl", "pairs/000001_chosen.png"])
def test_pairs_are_not_written_over_others(
    denoiserl: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, there: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path(there).parent.mkdir(exist_ok=True)
    Path(there).write_text("mine")
    said = denoiserl.refuses("pairs", *TEXT, "--output", "pairs.jsonl", "--gap", "1")
    assert "choose another place, or add --overwrite" in said
    assert ("pairs.jsonl exists" if there == "pairs.jsonl" else "pairs is not empty (000001_chosen.png)") in said
    assert Path(there).read_text() == "mine"


def test_when_no_pair_was_found_the_widest_gap_is_told(tmp_path: Path) -> None:
    config, console = compose(TEXT).config, Console(file=io.StringIO())
    with pytest.raises(RunFailed, match=r"rewards differ by 2; the most is 1\. Lower --gap"):
        report(config, 16, tmp_path / "pairs.jsonl", 2.0, Tally(widest=1.0, samples=64), console)
    tally = Tally(pairs=3, widest=1.0, samples=64, unfinished=5)
    report(config, 16, Path("pairs.jsonl"), 1.0, tally, console)
    printed = " ".join(console.file.getvalue().split())
    assert "5 of 64 completions were cut off at rollout.sampler.max_new_tokens=" in printed
    assert "3 pairs of 16 problems written to pairs.jsonl" in printed


def test_texts_without_a_stop_token_are_not_finished() -> None:
    modality = modality_of(compose(["recipe=quickstart"]).config)
    stop = modality.spec.stop_ids[0]
    completions = Completions(["", "", ""], [[5, stop], [5, 6], [stop]])
    assert modality.finished(completions).tolist() == [True, False, True]


def test_images_are_written_beside_the_rows_without_loss(tmp_path: Path) -> None:
    image = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
    modality = modality_of(compose(["recipe=quickstart_image"]).config)
    cell = modality.cell(image, tmp_path / "pairs" / "000003_chosen")
    assert cell == "pairs/000003_chosen.png"
    np.testing.assert_array_equal(pixels(located(cell, tmp_path), "x"), image)


def written(denoiserl: CommandLine, command: str, *overrides: str) -> tuple[list[dict], str]:
    """Rows and output of a command on the page, at a smaller size."""
    finished = denoiserl(*shlex.split(command)[1:], *overrides)
    assert finished.code == 0, finished.output
    return [json.loads(line) for line in Path("pairs.jsonl").read_text().splitlines()], finished.output


def scores(config: Config, row: dict, answers: list[Any]) -> list[float]:
    """What the configured reward says about both answers to the row's own problem."""
    (problem,) = (problem for problem in open_source(config.data.train) if problem.id == row["id"])
    assert problem.prompt == row["prompt"]
    columns = {name: [value] * 2 for name, value in problem.columns.items() if name != "prompt"}
    total = np.zeros(2)
    for term in [term for term in config.reward.terms.values() if term.weight]:
        values = resolve(term.function)(completions=answers, prompts=[problem.prompt] * 2, **columns, **term.args)
        total += term.weight * np.array(values)
    return total.tolist()


def test_text_pairs_are_solutions_and_failures_that_training_reads(
    cluster: None, denoiserl: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    rows, output = written(denoiserl, COMMANDS[0], *TEXT[1:])
    assert f"{len(rows)} pairs of 16 problems written to pairs.jsonl" in output
    assert len(rows) >= 3
    training = ["algorithm=dpo", "data=pairs_jsonl", "data.train.size=null"]
    config = compose([*TEXT, *training, "data.train.name=pairs.jsonl", "data.evaluation=null"]).config
    pairs, modality = open_source(config.data.train), modality_of(config)
    for index, row in enumerate(rows):
        answers = [row["chosen"], row["rejected"]]
        assert scores(compose(TEXT).config, row, answers) == [row["chosen_reward"], row["rejected_reward"]] == [1, 0]
        group = modality.offline_group(pairs[index], seed=0, update=0)
        assert [modality.tokenizer.decode(group.completion_ids(k), skip_special_tokens=True) for k in (0, 1)] == answers


@pytest.mark.slow
def test_image_pairs_from_perturbed_prompts_are_what_they_were_chosen_for(
    cluster: None, denoiserl: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Read back, each picture has the reward that it was chosen for. One sample of each prompt is enough."""
    monkeypatch.chdir(tmp_path)
    size = ["data.train.size=8", "rollout.prompts_per_update=4", "rollout.prompts_per_ticket=4"]
    rows, _ = written(denoiserl, COMMANDS[1], *size, "algorithm=sft", "rollout.group_size=1")
    assert rows
    pairs = open_source(SourceOptions(SourceKind.file, "pairs.jsonl", chosen_image="chosen", rejected_image="rejected"))
    config = compose(["recipe=quickstart_image", *size]).config
    for index, row in enumerate(rows):
        answers = [pixels(image, row["id"]) for image in pairs[index].images]
        found = scores(config, row, answers)
        assert found == pytest.approx([row["chosen_reward"], row["rejected_reward"]])
        assert found[0] - found[1] >= 1
