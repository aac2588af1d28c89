"""What rewards are tried on before a run starts."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from configs.compose import compose
from rl.data.problems import open_training
from rl.data.prompts import PromptSource
from rl.data.tickets import TicketKind
from rl.driver.actors import RewardActor
from rl.modality.choice import modality_of
from rl.modality.trial import Trial, trial_of


def trial(*options: str) -> Trial | None:
    config = compose([*options]).config
    modality = modality_of(config)
    return trial_of(config, modality, {TicketKind.train: PromptSource(open_training(config.data), modality)})


def test_completions_of_text_are_made_up_and_the_row_is_real() -> None:
    found = trial("recipe=quickstart", "data.train.size=64")
    assert found is not None
    completions = found.completions
    assert len(completions.outputs) == len(found.prompts) == 2
    assert found.columns.keys() >= {"question", "entry"}
    assert all(len(values) == 2 for values in (*found.columns.values(), *completions.columns.values()))
    assert completions.ids is not None
    assert [len(ids) for ids in completions.ids] == completions.columns["denoising_rounds"]


def test_pictures_have_the_size_of_a_rollout() -> None:
    found = trial("recipe=quickstart_image", "data.train.size=64")
    assert found is not None
    assert {(image.shape, image.dtype) for image in found.completions.outputs} == {((32, 32, 3), np.dtype(np.uint8))}


def test_nothing_is_tried_where_nothing_is_scored_or_nobody_wants_it(tmp_path: Path) -> None:
    assert trial("recipe=quickstart", "data.train.size=64", "reward.try_first=false") is None
    data = tmp_path / "rows.jsonl"
    data.write_text('{"prompt": "p", "response": "r"}\n')
    rows = ["data=jsonl", f"data.train.name={data}", "data.evaluation=null", "evaluation.every=0"]
    assert trial("recipe=quickstart", "algorithm=sft", *rows) is None


def test_a_function_is_called_as_in_a_run() -> None:
    """With the number of an update, for instance, which some functions look at."""
    function = "reward.terms.answer.function=tests.rl.support.rewards.update_number"
    options = ["recipe=quickstart", "data.train.size=64", function, "reward.terms.answer.args={}"]
    found = trial(*options)
    assert found is not None
    actor = RewardActor(compose(options).config)
    actor.try_out(found)
    actor.worker.close()
