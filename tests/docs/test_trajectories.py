"""docs/trajectories.md: its example reads a file as a run writes it, and it lists what the run folder holds."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import numpy as np
import pytest

import rl.run.folder
from models.options import ModelOptions
from models.text.checkpoint import load_text_policy
from rollout.options import SamplerOptions
from rollout.trajectory import write_parquet
from tests.documentation import ROOT, blocks
from tests.sampling import roll_out

PAGE = "docs/trajectories.md"
FILE = Path("runs/quickstart/trajectories/u000012.parquet")


def test_example_shows_rewards_and_every_canvas(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    policy, tokenizer = load_text_policy(ModelOptions(path="tiny/block"))
    prompt = np.array(tokenizer("1 2 3 4").input_ids, np.int32)
    (group,) = roll_out(policy, SamplerOptions(max_new_tokens=8), [prompt], group_size=2)
    monkeypatch.chdir(tmp_path)
    FILE.parent.mkdir(parents=True)
    write_parquet([group.with_rewards(np.array([0.25, np.nan]))], FILE)

    (code,) = blocks(PAGE, "python")
    exec(compile(code, PAGE, "exec"), {})

    header, shown_prompt, *samples_and_canvases = capsys.readouterr().out.splitlines()
    assert header == "prompt-0 under the weights of version 1"
    assert shown_prompt == repr(tokenizer.decode(prompt))
    assert samples_and_canvases[0] == f"0.25 {tokenizer.decode(group.completion_ids(0))!r}"
    assert samples_and_canvases[1] == f"nan {tokenizer.decode(group.completion_ids(1))!r}"

    mask = tokenizer.decode([policy.spec.mask_id])
    canvases = [ast.literal_eval(line.partition(" ")[2]) for line in samples_and_canvases[2:]]
    left = [canvas.count(mask) for canvas in canvases]
    length = int(group.canvas_length[0])
    assert left == list(range(length, length - len(left), -1))  # one token a round
    assert len(left) == int(group.reveal[0].max()) + 1
    assert canvases[-1] == tokenizer.decode(group.canvas_ids[0, :length])


def test_run_folder_is_listed_as_the_program_describes_it() -> None:
    def names(lines: list[str]) -> set[str]:
        return {name for line in lines for name in re.findall(r"[\w./]+(?:\.\w+|/)(?=[`\s]|$)", line)}

    listed = [line.split("|")[1] for line in (ROOT / PAGE).read_text().splitlines() if line.startswith("| `")]
    assert rl.run.folder.__doc__ is not None
    described = [line.split("  ")[1:] for line in rl.run.folder.__doc__.splitlines() if line.startswith("  ")]
    assert names(listed) == names([" ".join(parts[:2]) for parts in described])
