"""Scenes and digits as sources: rows are pure functions of their index and carry what their rewards need."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest

from configs.compose import compose as compose_config
from configs.schema import SourceKind, SourceOptions
from rewards.images.digits import WORDS, digit_images
from rewards.registry import resolve
from rewards.scenes.world import compositions
from rl.data.problems import open_source
from rl.data.rows import DataError


def scenes(**options: object) -> SourceOptions:
    return SourceOptions(**{"kind": SourceKind.scenes, "name": "scenes", "size": 50, **options})  # type: ignore[arg-type]


def digits(**options: object) -> SourceOptions:
    return SourceOptions(kind=SourceKind.digits, name="digits", **options)  # type: ignore[arg-type]


def test_scene_rows_have_a_prompt_and_a_demonstration_that_its_reward_likes() -> None:
    problems = open_source(scenes(seed=4))
    rows = [problems[index] for index in range(50)]
    assert rows[7].id == "scenes/7"
    assert all(row.prompt == row.columns["composition"] for row in rows)
    images = [row.columns["image"] for row in rows]
    assert {(image.shape, image.dtype) for image in images} == {((32, 32, 3), np.dtype(np.uint8))}
    columns = {"composition": [row.columns["composition"] for row in rows], "prompts": [row.prompt for row in rows]}
    assert resolve("scene")(completions=images, **columns) == [1.0] * 50


def test_careless_changes_pictures_and_no_prompt() -> None:
    careful, careless = open_source(scenes(seed=4)), open_source(scenes(seed=4, args={"careless": 0.5}))
    assert [careful[i].prompt for i in range(50)] == [careless[i].prompt for i in range(50)]
    rows = [careless[i].columns for i in range(50)]
    values = resolve("scene")(
        completions=[row["image"] for row in rows], composition=[row["composition"] for row in rows], strict=True
    )
    assert 0.3 < np.mean(values) < 0.7


def test_scenes_are_pure_functions_of_seed_and_index() -> None:
    options = scenes(seed=4, args={"careless": 0.5})
    forward = [open_source(options)[i].columns["image"].tobytes() for i in range(6)]
    problems = open_source(options)
    assert [problems[i].columns["image"].tobytes() for i in (3, 0, 5)] == [forward[i] for i in (3, 0, 5)]
    longer = open_source(scenes(seed=4, size=100000, args={"careless": 0.5}))
    assert longer[3].columns["image"].tobytes() == forward[3]
    assert longer[99999].prompt
    assert [open_source(scenes(seed=5))[i].prompt for i in range(6)] != [problems[i].prompt for i in range(6)]


def test_evaluation_scenes_are_the_held_out_ones_each_once() -> None:
    problems = open_source(scenes(split="held_out", size=None))
    prompts = [problems[index].prompt for index in range(len(problems))]
    assert sorted(prompts) == sorted(composition.text for composition in compositions("held_out"))
    trained = open_source(scenes(size=800))
    assert not set(prompts) & {trained[index].prompt for index in range(800)}
    with pytest.raises(DataError, match=f"size={len(problems) + 1} of scenes, which has {len(problems)} rows"):
        open_source(scenes(split="held_out", size=len(problems) + 1))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (scenes(split="test"), "no split 'test': choose train or held_out"),
        (scenes(size=None), "which have no end"),
        (scenes(size=0), "size=0"),
        (scenes(seed=-1), "seed=-1"),
        (scenes(args={"careles": 0.5}), "no args careles; they know careless"),
        (scenes(args={"careless": 1.5}), "careless=1.5"),
        (scenes(args={"careless": "often"}), "careless='often'"),
        (digits(split="test"), "no split 'test': choose train, reward, held_out"),
        (digits(seed=-1), "seed=-1"),
        (digits(size=901), "size=901 of digits, which has 900 rows"),
        (digits(args={"careless": 0.5}), "no meaning for digits"),
    ],
)
def test_unusable_options_are_named(options: SourceOptions, message: str) -> None:
    with pytest.raises(DataError, match=message):
        open_source(options)


def test_digit_rows_have_a_prompt_and_the_picture_of_that_digit() -> None:
    problems = open_source(digits(seed=3))
    assert len(problems) == 900
    rows = [problems[index] for index in range(900)]
    assert all(row.prompt == f"the digit {WORDS[row.columns['digit']]}" for row in rows)
    images, labels = digit_images("train")
    labelled = {image.tobytes(): label for image, label in zip(images, labels, strict=True)}
    assert all(labelled[row.columns["image"].tobytes()] == row.columns["digit"] for row in rows)
    assert [row.columns["digit"] for row in rows] != labels.tolist()
    reward = resolve("digit_probability")
    columns = {"digit": [row.columns["digit"] for row in rows], "prompts": [row.prompt for row in rows]}
    assert np.mean(reward(completions=[row.columns["image"] for row in rows], **columns)) > 0.85


@pytest.mark.parametrize("source", ["scenes", "digits"])
def test_fingerprints_are_the_same_in_another_process_and_see_the_pictures(source: str) -> None:
    options = {"scenes": scenes(), "digits": digits()}[source]
    program = (
        "from configs.schema import SourceKind, SourceOptions; from rl.data.problems import open_source;"
        f"options = SourceOptions(kind=SourceKind.{source}, name={source!r}, size={options.size});"
        "print(open_source(options).fingerprint())"
    )
    environment = {**os.environ, "PYTHONHASHSEED": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    run = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    assert run.stdout.strip() == open_source(options).fingerprint()
    changed = {"scenes": scenes(args={"careless": 0.5}), "digits": digits(seed=1)}[source]
    assert open_source(changed).fingerprint() != open_source(options).fingerprint()


@pytest.mark.parametrize(
    ("data", "reward"), [("scenes", "scene"), ("scenes", "jpeg"), ("scenes", "incompressible"), ("digits", "digit")]
)
def test_the_packaged_files_fit_together(data: str, reward: str) -> None:
    config = compose_config(["recipe=quickstart", f"data={data}", f"reward={reward}"]).config
    for source in (config.data.train, config.data.evaluation):
        assert source is not None
        problem = open_source(source)[0]
        row = problem.columns
        assert "image" not in row  # rewards do not see the demonstration
        for term in config.reward.terms.values():
            columns = {name: [value] for name, value in row.items() if name != "prompt"}
            (value,) = resolve(term.function)(
                completions=[problem.images[0]], prompts=[row["prompt"]], **columns, **term.args
            )
            assert value is None or np.isfinite(value)
