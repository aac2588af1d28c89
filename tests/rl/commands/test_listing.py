"""`denoiserl list` and `--version`."""

from __future__ import annotations

import json
from importlib.metadata import version
from pathlib import Path

import pytest

from configs.compose import GROUPS, PACKAGE
from tests.rl.support.command_line import CommandLine


@pytest.mark.parametrize("group", GROUPS)
def test_every_file_of_a_group_is_listed_with_what_it_says(
    denoiserl: CommandLine, capfd: pytest.CaptureFixture[str], group: str
) -> None:
    listed = json.loads(denoiserl("list", f"{group}s" if group != "data" else group, "--json").output)
    assert [row["name"] for row in listed] == sorted(file.stem for file in (PACKAGE / group).glob("*.yaml"))
    assert all(len(row["summary"]) > 20 for row in listed)


def test_files_of_one_s_own_are_listed_too(denoiserl: CommandLine, tmp_path: Path) -> None:
    (tmp_path / "reward").mkdir()
    (tmp_path / "reward/mine.yaml").write_text("# Pays for [short] answers.\nterms: {}\n")
    said = denoiserl("list", "rewards", "--config-dir", tmp_path).output
    assert "mine Pays for [short] answers." in said
    assert "jpeg_compressibility (image)" in said  # functions are named, too


def test_an_unknown_group_is_told_those_there_are(denoiserl: CommandLine) -> None:
    assert "there is no list of losses; there are models, algorithms" in denoiserl.refuses("list", "losses")


def test_the_tasks_of_reasoning_gym_are_listed_with_what_their_scorers_are(denoiserl: CommandLine) -> None:
    said = denoiserl("list", "tasks").output
    assert "coin_flip unsafe" in said
    assert "refused: its verifier pays 1 for 0" in said
    rows = {row["name"]: row for row in json.loads(denoiserl("list", "tasks", "--json").output)}
    assert (rows["binary_matrix"]["scorer"], rows["chain_sum"]["scorer"]) == ("exact", "graded")
    assert rows["coin_flip"]["refused"]
    assert rows["chain_sum"]["refused"] is None


def test_the_version_is_the_installed_one(denoiserl: CommandLine) -> None:
    assert denoiserl("--version").output == f"denoiserl {version('denoiserl')}"
