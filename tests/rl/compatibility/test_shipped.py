"""Every shipped configuration file composes into a run that the compatibility check lets pass."""

from __future__ import annotations

from pathlib import Path

import pytest

from configs.compose import GROUPS, PACKAGE, compose
from rl.compatibility import problems

BASES = {
    "text": ["recipe=quickstart"],
    "demonstrations of text": ["recipe=sft_tiny_block"],
    "images": ["recipe=quickstart_image"],
    "reward gradients": ["recipe=digits_draft"],
}
FILES = ["data.train.name=train.jsonl", "data.evaluation.name=test.jsonl"]
TEXT_PAIRS = ["data=pairs_jsonl", *FILES]
IMAGE_PAIRS = ["data=image_pairs_jsonl", *FILES]
USERS = ["data.train.user=x", "data.evaluation.user=x"]
SHARDED = ["cluster.zero_stage=1"]
"""What a model in bf16 needs."""
NEEDED = {
    "algorithm/d_tree_rpo": ["rollout.branching.forks=[0,4]"],
    "algorithm/dpo": TEXT_PAIRS,
    "algorithm/vrpo": TEXT_PAIRS,
    "algorithm/diffusion_dpo": IMAGE_PAIRS,
    "algorithm/inpo": IMAGE_PAIRS,
    "algorithm/ppd": [*IMAGE_PAIRS, *USERS],
    "data/mixed_cot": [*FILES, "data.also.plain.name=c.jsonl"],
    "data/jsonl": FILES,
    "data/captions": FILES,
    "data/drawbench": FILES[:1],
    "data/geneval": FILES,
    "data/sudoku": FILES,
    "data/pick_a_pic": ["algorithm=diffusion_dpo", *FILES],
    "data/pairs_jsonl": ["algorithm=dpo", *FILES],
    "data/image_pairs_jsonl": ["algorithm=diffusion_dpo", *FILES],
    "recipe/sd15_jpeg": FILES,
    "recipe/sd35_medium_flow_grpo": FILES,
    "recipe/flux_dev_mix_grpo": FILES,
}
SHIPPED = [file for group in GROUPS for file in sorted((PACKAGE / group).glob("*.yaml"))]


def label(file: Path) -> str:
    return f"{file.parent.name}/{file.stem}"


@pytest.mark.parametrize("file", SHIPPED, ids=label)
def test_a_shipped_file_is_part_of_a_run_that_can_work(file: Path) -> None:
    group = file.parent.name
    chosen = [f"{group}={file.stem}", *NEEDED.get(label(file), []), *(SHARDED if group == "model" else [])]
    refusals = []
    for base in [[]] if group == "recipe" else BASES.values():
        composed = compose([*base, *chosen])
        assert f"configs/{label(file)}.yaml" in composed.sources
        refusals.append(problems(composed.config, None))
        if not refusals[-1]:
            return
    raise AssertionError(min(refusals, key=len))


def test_nothing_is_needed_by_a_file_that_is_not_there() -> None:
    assert NEEDED.keys() <= {label(file) for file in SHIPPED}
