"""Users' vectors on their way from the data to rollout and replay, and what is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from configs.compose import compose
from configs.errors import ConfigError
from configs.schema import Config, SourceKind, SourceOptions
from models.images.checkpoint import read_image_spec
from models.images.export import export_image_policy
from models.lora import trainable_parameters
from models.options import UserAdapterOptions
from rl.commands.pairs import _identity
from rl.compatibility import check
from rl.data.problems import Problem, open_source
from rl.data.rows import DataError
from rl.likelihood.image_elbo import recorded
from rl.modality.choice import modality_of
from rollout.images.worker import ImageRolloutWorker
from rollout.noise import Purpose, normal
from rollout.options import DenoisingOptions, KernelKind
from rollout.trajectory import ImageTrajectory, read_parquet, write_parquet
from tests.models.pipelines import tiny_pipeline
from tests.rl.support.image_rollouts import GROUP, largest_gap, pipeline_folder, replayed, roll_out, worker_of

ADA, BOB = np.array([0.5, -1, 2], np.float32), np.array([-2, 0, 1], np.float32)
PPD = [
    "algorithm=ppd",
    "data=image_pairs_jsonl",
    "data.train.user=user",
    "data.evaluation.user=user",
    "data.train.name=pairs.jsonl",
    "data.evaluation.name=wanted.jsonl",
    "evaluation.every=0",
    "run.name=x",
]


def source(folder: Path, rows: list[dict[str, Any]], **changes: Any):
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    options = {"user": "user", **changes}
    return open_source(SourceOptions(SourceKind.file, str(folder / "rows.jsonl"), **options))


def config_of(model: str = "tiny/digits", *overrides: str) -> Config:
    return compose([*PPD, "model=tiny_digits", f"model.path={model}", *overrides]).config


def test_a_vector_is_a_list_or_a_file_beside_the_rows(tmp_path: Path) -> None:
    np.save(tmp_path / "ada.npy", ADA.astype(np.float64))
    users = ["ada.npy", ADA.tolist(), [1, 0, 0]]
    problems = source(tmp_path, [{"prompt": "p", "user": user} for user in users])
    for index, expected in enumerate((ADA, ADA, [1, 0, 0])):
        assert problems[index].user.dtype == np.float32
        np.testing.assert_array_equal(problems[index].user, expected)
        assert problems[index].columns["user"] == users[index]  # rewards see it
    plain = source(tmp_path, [{"prompt": "p", "user": "ada.npy"}], user=None)
    assert plain[0].user is None
    assert plain.fingerprint() != source(tmp_path, [{"prompt": "p", "user": "ada.npy"}]).fingerprint()


@pytest.mark.parametrize(
    ("user", "message"),
    [
        (None, r"problem rows.jsonl/0 has an empty column 'user', which `user` names"),
        ([1.0, float("nan")], r"rows.jsonl, line 1: has the value NaN, which JSON does not know"),
        ([1.0, 1e39], r"the user of rows.jsonl/0 has numbers that are infinite or not a number"),
        ([1.0, None], r"the user of rows.jsonl/0 is object of shape \(2,\); it must be a vector of numbers"),
        ([[1.0], [2.0]], r"of shape \(2, 1\); it must be a vector"),
        ([[1.0], [2.0, 3.0]], r"is no list of numbers"),
        (["1", "2"], r"it must be a vector of numbers"),
        (7, r"of shape \(\); it must be a vector"),
        ("nobody.npy", r"the user of rows.jsonl/0, .*nobody.npy, cannot be read: .*No such file"),
        ("rows.jsonl", r"the user of rows.jsonl/0, .*rows.jsonl, cannot be read"),
    ],
)
def test_what_is_no_vector_is_named(tmp_path: Path, user: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        source(tmp_path, [{"prompt": "p", "user": user}])[0]


def test_a_column_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"problem rows.jsonl/0 has no column 'user', which `user` names"):
        source(tmp_path, [{"prompt": "p"}])


def test_vectors_have_the_width_of_the_adapter() -> None:
    modality = modality_of(config_of("tiny/digits", "model.user_adapter.dimension=3"))
    np.testing.assert_array_equal(modality.prompt(Problem("a", "the digit one", {}, user=ADA)).user, ADA)
    with pytest.raises(DataError, match=r"the user of a is a vector of 2 numbers, and model.user_adapter.dimension=3"):
        modality.prompt(Problem("a", "the digit one", {}, user=ADA[:2]))
    with pytest.raises(DataError, match="--prompt has no user, and this model makes pictures for users"):
        modality.prompt(Problem("--prompt", "the digit one", {}))


def test_both_answers_of_a_pair_are_one_users(tmp_path: Path) -> None:
    for name, level in (("dark", 20), ("light", 220)):
        Image.fromarray(np.full((32, 32, 3), level, np.uint8)).save(tmp_path / f"{name}.png")
    row = {"prompt": "the digit one", "chosen": "dark.png", "rejected": "light.png"}
    columns = {"chosen_image": "chosen", "rejected_image": "rejected"}
    pairs = source(tmp_path, [{**row, "user": ADA.tolist()}, {**row, "user": BOB.tolist()}], **columns)
    modality = modality_of(config_of("tiny/digits", "model.user_adapter.dimension=3"))
    policy = modality.policy(torch.device("cpu"))
    likelihood = modality.likelihood(policy, torch.device("cpu"))
    groups = [modality.offline_group(pairs[index], seed=1, update=0) for index in (0, 1)]
    for group, user in zip(groups, (ADA, BOB), strict=True):
        np.testing.assert_array_equal(group.user, user)
    contents = [row.content for row in likelihood.rows(groups, 0)]
    assert [content.condition.user[0].tolist() for content in contents] == [ADA.tolist()] * 2 + [BOB.tolist()] * 2
    other = modality_of(config_of("tiny/digits", "model.user_adapter.dimension=4"))
    with pytest.raises(DataError, match=r"a vector of 3 numbers, and model\.user_adapter\.dimension=4"):
        other.offline_group(pairs[0], seed=1, update=0)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["model=sd15", "model.lora={}"], "model.user_adapter and model.lora are two ways to train"),
        (["algorithm.value.passes=1"], "algorithm.value predicts from prompt and picture and knows no user"),
        (["data.train.user=null"], "has none; set data.train.user to the column"),
        (
            ["data.also.more.kind=file", "data.also.more.name=more.jsonl"],
            "has none; set data.also.more.user to the column",
        ),
        (["data.evaluation.user=null"], "has none; set data.evaluation.user to the column"),
        (["model.user_adapter=null"], "data.train.user=user names a column of users' vectors"),
        (["model.user_adapter=null", "data.train.user=null"], "data.evaluation.user=user names a column of users' vec"),
        (["model.user_adapter.dimension=0"], "model.user_adapter.dimension=0: must be at least 1"),
        (["model.user_adapter.scale=0"], "model.user_adapter.scale=0.0: must be above 0"),
    ],
)
def test_options_that_cannot_work_are_refused(overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        check(compose(["model=tiny_digits", *PPD, *overrides]).config, None)


@pytest.mark.parametrize("model", ["sd15", "sdxl", "tiny_digits"])
def test_the_recipe_is_for_unets(model: str) -> None:
    config = compose([f"model={model}", "cluster.zero_stage=1", *PPD]).config
    assert config.model.lora is None
    check(config, None)


def test_other_models_are_refused() -> None:
    scenes = compose(["model=tiny_scenes", *PPD]).config
    with pytest.raises(ConfigError, match="this model is of family sd3; choose such a model, for example model=sd15"):
        check(scenes, read_image_spec(scenes.model))
    text = compose(["recipe=quickstart", "model.user_adapter.dimension=3"]).config
    with pytest.raises(ConfigError, match=r"model\.user_adapter is for models of images"):
        check(text, None)


def test_samples_of_two_users_are_not_compared_though_their_prompt_is_the_same() -> None:
    conditions = [Problem(name, "p", {}, user=user).condition for name, user in (("a", ADA), ("b", ADA), ("c", BOB))]
    assert conditions[0] == conditions[1] != conditions[2]
    assert Problem("d", "p", {}).condition == "p"


def test_written_pairs_keep_their_user_bitwise(tmp_path: Path) -> None:
    user = np.random.default_rng(0).normal(size=7).astype(np.float32)
    row = _identity(Problem("a/1", "p", {}, user=user))
    assert row.keys() == {"id", "prompt", "user"}
    np.testing.assert_array_equal(source(tmp_path, [row])[0].user, user)
    assert _identity(Problem("a/1", "p", {})) == {"id": "a/1", "prompt": "p"}


# Rollout and replay


def personal_worker(root: Path, family: str) -> ImageRolloutWorker:
    worker = worker_of(pipeline_folder(root, family), user_adapter=UserAdapterOptions(3))
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in trainable_parameters(worker.policy).values():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.3)
    return worker


@pytest.mark.parametrize(("family", "guidance"), [("sd", 1.0), ("sd", 4.0), ("sdxl", 4.0)])
def test_replay_is_what_the_rollout_recorded_for_each_user(tmp_path: Path, family: str, guidance: float) -> None:
    worker = personal_worker(tmp_path, family)
    options = DenoisingOptions(steps=4, height=32, width=32, guidance=guidance)
    trajectories, _ = roll_out(worker, options, ("a dog",) * 2, users=(ADA, BOB))
    write_parquet(trajectories, tmp_path / "groups.parquet")
    read: list[ImageTrajectory] = read_parquet(tmp_path / "groups.parquet")
    for trajectory, user in zip(read, (ADA, BOB), strict=True):
        np.testing.assert_array_equal(trajectory.user, user)
        assert recorded(trajectory)[1].user.tolist() == [user.tolist()]
    assert largest_gap(read, replayed(worker.policy, read, options)) <= 1e-5
    swapped = [replace(t, user=user) for t, user in zip(read, (BOB, ADA), strict=True)]
    assert largest_gap(swapped, replayed(worker.policy, swapped, options)) > 1e-3


@pytest.mark.parametrize("family", ["sd", "sdxl"])
def test_guided_rollouts_are_the_stock_pipelines_with_an_ip_adapter(tmp_path: Path, family: str) -> None:
    """The same user in both halves of guidance; with IP-Adapter's zeros in one of them the images differ."""
    worker = personal_worker(tmp_path, family)
    options = DenoisingOptions(steps=4, height=32, width=48, guidance=5.0, kernel=KernelKind.ode)
    (trajectory,), _ = roll_out(worker, options, ("red cat",), users=(ADA,))
    stock = tiny_pipeline(family)
    export_image_policy(worker.policy, tmp_path / "adapter", "", adapter_only=True)
    stock.load_ip_adapter(tmp_path / "adapter", "", "ip_adapter.safetensors", image_encoder_folder=None)
    noise = normal(torch.tensor(trajectory.uid), trajectory.final.shape[1:], 0, Purpose.INITIAL)

    def drawn(without_prompt: np.ndarray) -> np.ndarray:
        halves = torch.from_numpy(np.stack([without_prompt, ADA]))[:, None]
        return stock(
            ["red cat"] * GROUP,
            height=32,
            width=48,
            latents=noise,
            num_inference_steps=4,
            guidance_scale=5.0,
            output_type="latent",
            ip_adapter_image_embeds=[halves.repeat_interleave(GROUP, 0)],
        ).images.numpy()

    scale = np.abs(trajectory.final).max()
    assert np.abs(drawn(ADA) - trajectory.final).max() < 1e-5 * scale
    assert np.abs(drawn(np.zeros(3, np.float32)) - trajectory.final).max() > 1e-3 * scale
