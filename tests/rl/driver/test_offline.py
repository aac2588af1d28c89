"""Preference pairs from their files to the groups that a learner gets, for text and images, and what is refused."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import torch
from datasets import Dataset, Features, Value
from datasets import Image as ImageFile
from PIL import Image

from configs.compose import compose
from configs.schema import Config, SourceKind, SourceOptions
from models.policy import Policy
from rl.data.image_columns import pixels
from rl.data.problems import open_source
from rl.data.prompts import PromptSource
from rl.data.rows import DataError
from rl.data.tickets import TicketKind
from rl.driver.generation import Generation
from rl.driver.offline import OfflineLoop
from rl.driver.processes import Processes
from rl.driver.schedule import Schedule
from rl.likelihood.protocol import Likelihood
from rl.modality.choice import modality_of
from rollout.trajectory import ImageTrajectory, TextTrajectory, Trajectory

CPU = torch.device("cpu")
TEXTS = [
    {"prompt": "1+1", "chosen": "2", "rejected": "it is 3"},
    {"prompt": "2+2", "chosen": "it is 4", "rejected": "5"},
    {"prompt": "3+3", "chosen": "6", "rejected": "7"},
]
RED, BLUE = (np.full((32, 32, 3), colour, np.uint8) for colour in ((200, 0, 0), (0, 0, 200)))


def text_config(model: Path, name: Path, *overrides: str) -> Config:
    options = ["recipe=quickstart", "algorithm=dpo", "data=pairs_jsonl"]
    options += [f"model.path={model}", f"data.train.name={name}", "data.evaluation=null"]
    options += ["rollout.sampler.max_new_tokens=8"]
    size = ["rollout.prompts_per_update=3", "rollout.prompts_per_ticket=3", "evaluation.every=0", "run.updates=2"]
    return compose([*options, *size, *overrides]).config


def image_config(model: Path, name: Path, *overrides: str) -> Config:
    options = ["algorithm=dpo", "data=image_pairs_jsonl", "model.modality=image"]
    options += [f"model.path={model}", f"data.train.name={name}", "data.evaluation=null", "run.name=x"]
    size = ["rollout.prompts_per_update=2", "rollout.prompts_per_ticket=2", "evaluation.every=0", "run.updates=2"]
    return compose([*options, "model.max_sequence_length=16", *size, *overrides]).config


def loop_of(config: Config) -> OfflineLoop:
    """Its reading half: no process is started, and nothing learns."""
    modality = modality_of(config)
    modality.check()
    source = PromptSource(open_source(config.data.train), modality)
    source.check()
    source.check_offline_groups()
    rollout = config.rollout
    schedule = Schedule(
        config.run.seed, len(source.problems), rollout.prompts_per_update, rollout.prompts_per_ticket, 1, 0, 2
    )
    processes = Processes({}, {}, {})
    sources = {TicketKind.train: source}
    generation = Generation(config, processes, modality, sources, lambda _: nullcontext(), print)
    return OfflineLoop(config, schedule, generation, learners=None, run=None)


def write_jsonl(path: Path, rows: list[dict]) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def encoded(image: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, "PNG")
    return stream.getvalue()


def test_text_pairs_become_groups_of_a_chosen_and_a_rejected_answer(model: Path, tmp_path: Path) -> None:
    loop = loop_of(text_config(model, write_jsonl(tmp_path / "pairs.jsonl", TEXTS)))
    groups = loop.groups_of(0)
    assert len(groups) == 3
    tokenizer = loop.generation.modality.tokenizer
    read = set()
    for trajectory, advantage, valid, _ in groups:
        assert isinstance(trajectory, TextTrajectory)
        assert (advantage.tolist(), advantage.dtype, valid.tolist()) == ([1, -1], np.float32, [True, True])
        answers = [tokenizer.decode(trajectory.completion_ids(k), skip_special_tokens=True) for k in (0, 1)]
        prompt = tokenizer.decode(trajectory.prompt_ids, skip_special_tokens=True)
        read.add((prompt, *answers))
    assert read == {(row["prompt"], row["chosen"], row["rejected"]) for row in TEXTS}
    lengths = {tuple(trajectory.canvas_length.tolist()) for trajectory, *_ in groups}
    assert len(lengths) > 1  # so that padding was needed


def test_every_sample_has_noise_of_its_own_that_follows_from_the_seed(model: Path, tmp_path: Path) -> None:
    name = write_jsonl(tmp_path / "pairs.jsonl", TEXTS)
    loop = loop_of(text_config(model, name))
    uids = [trajectory.uid.tolist() for update in (0, 1) for trajectory, *_ in loop.groups_of(update)]
    assert len({uid for group in uids for uid in group}) == 2 * len(uids) == 12
    again = loop_of(text_config(model, name))
    assert [trajectory.uid.tolist() for trajectory, *_ in again.groups_of(1)] == uids[3:]
    other = loop_of(text_config(model, name, "run.seed=1"))
    assert [trajectory.uid.tolist() for trajectory, *_ in other.groups_of(1)] != uids[3:]


def test_a_demonstration_is_a_group_of_one(model: Path, tmp_path: Path) -> None:
    name = write_jsonl(tmp_path / "pairs.jsonl", TEXTS)
    demonstration = ["data=jsonl", "data.train.response='{{ chosen }}'", "algorithm=sft"]
    groups = loop_of(text_config(model, name, *demonstration)).groups_of(0)
    assert [(t.group_size, a.tolist(), v.tolist()) for t, a, v, _ in groups] == [(1, [1], [True])] * 3


def image_sources(folder: Path) -> dict[str, list[str]]:
    """The same two pairs in every form that a source may have -> overrides."""
    rows = [("red", RED, BLUE), ("blue", BLUE, RED)]
    (folder / "pictures").mkdir()
    for name, image in (("red", RED), ("blue", BLUE)):
        Image.fromarray(image).save(folder / f"pictures/{name}.png")
    paths = [
        {"prompt": prompt, "chosen": f"pictures/{prompt}.png", "rejected": f"pictures/{other}.png"}
        for prompt, other in (("red", "blue"), ("blue", "red"))
    ]
    write_jsonl(folder / "paths.jsonl", paths)
    (folder / "paths.csv").write_text("\n".join(["prompt,chosen,rejected", *(",".join(row.values()) for row in paths)]))
    inside = [{"prompt": p, "chosen": encoded(c), "rejected": encoded(r)} for p, c, r in rows]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(inside), folder / "bytes.parquet")
    features = Features({"prompt": Value("string"), "chosen": ImageFile(), "rejected": ImageFile()})
    pictures = [{"prompt": p, "chosen": Image.fromarray(c), "rejected": Image.fromarray(r)} for p, c, r in rows]
    saved = Dataset.from_list(pictures, features)
    saved.save_to_disk(str(folder / "saved"))
    saved.to_parquet(str(folder / "features.parquet"))
    files = ["paths.jsonl", "paths.csv", "bytes.parquet", "features.parquet"]
    overrides = {name: [f"data.train.name={folder / name}"] for name in files}
    return overrides | {"saved": [f"data.train.name={folder / 'saved'}", "data.train.kind=dataset"]}


def test_image_pairs_are_the_same_in_every_kind_of_source(flow: Path, tmp_path: Path) -> None:
    for name, overrides in image_sources(tmp_path).items():
        groups = loop_of(image_config(flow, tmp_path / "unused.jsonl", *overrides)).groups_of(0)
        found = {}
        for trajectory, advantage, valid, _ in groups:
            assert isinstance(trajectory, ImageTrajectory), name
            assert (advantage.tolist(), valid.tolist()) == ([1, -1], [True, True])
            assert len(set(trajectory.uid.tolist())) == 2
            assert trajectory.logp.shape == trajectory.mask.shape == (2, 1)
            found[trajectory.caption] = trajectory.image
        np.testing.assert_array_equal(found["red"], [RED, BLUE], name)
        np.testing.assert_array_equal(found["blue"], [BLUE, RED], name)


def test_rewards_see_neither_image_of_a_pair(tmp_path: Path) -> None:
    name = write_jsonl(tmp_path / "a.jsonl", [{"prompt": "a", "good": "a.png", "bad": "b.png", "answer": 1}])
    options = SourceOptions(SourceKind.file, str(name), chosen_image="good", rejected_image="bad")
    problem = open_source(options)[0]
    assert problem.columns == {"prompt": "a", "answer": 1}
    assert problem.images == (tmp_path / "a.png", tmp_path / "b.png")


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"prompt": "4+4", "chosen": "8"}, "/3 does not fit the rejected template.*columns are prompt, chosen"),
        ({"prompt": "4+4", "chosen": "8", "rejected": None}, "/3 does not fit the rejected template.*null"),
        ({"prompt": "4+4", "chosen": "8", "rejected": "8"}, "/3: the chosen and the rejected answer are the same"),
        ({"prompt": "4+4", "chosen": "8", "rejected": "9" * 8}, "response of pairs.jsonl/3 has 9 tokens, more than"),
    ],
)
def test_unusable_text_pairs_are_named(model: Path, tmp_path: Path, row: dict, message: str) -> None:
    name = write_jsonl(tmp_path / "pairs.jsonl", [*TEXTS, row])
    with pytest.raises(DataError, match=message):
        loop_of(text_config(model, name))


def test_unusable_image_pairs_are_named(flow: Path, tmp_path: Path) -> None:
    Image.fromarray(RED).save(tmp_path / "red.png")
    Image.fromarray(RED).save(tmp_path / "same.bmp")
    Image.fromarray(RED[:16]).save(tmp_path / "small.png")
    (tmp_path / "broken.png").write_bytes(encoded(BLUE)[:60])
    for row, message in {
        "missing.png": r"image of pairs.jsonl/0 cannot be read: .*missing.png",
        "broken.png": r"image of pairs.jsonl/0 cannot be read: .*broken.png",
        "small.png": r"image of pairs.jsonl/0 is uint8 of shape \(16, 32, 3\)",
        "same.bmp": "pairs.jsonl/0: the chosen and the rejected answer are the same",
        None: "pairs.jsonl/0 has an empty column 'rejected', which `rejected_image` names",
    }.items():
        name = write_jsonl(tmp_path / "pairs.jsonl", [{"prompt": "red", "chosen": "red.png", "rejected": row}])
        with pytest.raises(DataError, match=message):
            loop_of(image_config(flow, name))
    with pytest.raises(DataError, match="no column 'loser', which `rejected_image` names"):
        loop_of(image_config(flow, name, "data.train.rejected_image=loser"))


@pytest.mark.parametrize("make", [lambda path: path, lambda path: path.read_bytes()], ids=["path", "bytes"])
def test_photographs_come_upright(tmp_path: Path, make: Callable[[Path], object]) -> None:
    """A camera that was held sideways stores the picture lying and says so beside it."""
    lying = np.zeros((8, 16, 3), np.uint8)
    lying[:, :8] = 255
    note = Image.Exif()
    note[0x0112] = 6  # to be turned clockwise by 90 degrees
    Image.fromarray(lying).save(tmp_path / "photo.png", exif=note)
    upright = pixels(make(tmp_path / "photo.png"), "photo")
    assert upright.shape == (16, 8, 3)
    assert upright[:8].min() == 255
    assert upright[8:].max() == 0


def test_bytes_that_are_no_picture_are_not_printed() -> None:
    with pytest.raises(DataError, match=r"the image of p/1 cannot be read: 3 bytes are no picture"):
        pixels(b"abc", "p/1")


def test_fingerprints_tell_pairs_apart(tmp_path: Path) -> None:
    name = str(write_jsonl(tmp_path / "a.jsonl", TEXTS))
    pairs = {"chosen": "{{ chosen }}", "rejected": "{{ rejected }}"}
    swapped = {"chosen": "{{ rejected }}", "rejected": "{{ chosen }}"}
    columns = {"chosen_image": "chosen", "rejected_image": "rejected"}
    sources = [SourceOptions(SourceKind.file, name, **answers) for answers in (pairs, swapped, columns, {})]
    assert len({open_source(options).fingerprint() for options in sources}) == 4


def test_an_answer_is_scored_alike_in_a_pair_and_alone(model: Path, flow: Path, tmp_path: Path) -> None:
    """Under the noise of its own key: neither padding nor the other answer matter."""
    Image.fromarray(RED).save(tmp_path / "red.png")
    Image.fromarray(BLUE).save(tmp_path / "blue.png")
    pictures = [{"prompt": "red", "chosen": "red.png", "rejected": "blue.png"}] * 2
    for config in (
        text_config(model, write_jsonl(tmp_path / "texts.jsonl", TEXTS)),
        image_config(flow, write_jsonl(tmp_path / "pictures.jsonl", pictures)),
    ):
        loop = loop_of(config)
        policy = loop.generation.modality.policy(CPU)
        likelihood = loop.generation.modality.likelihood(policy, CPU)
        pair = loop.groups_of(0)[0][0]
        seen = set()
        for draw in range(8):  # a draw may mask nothing of a short answer
            both = estimates(policy, likelihood, pair, draw)
            alone = [estimates(policy, likelihood, pair.take([sample]), draw)[0] for sample in (0, 1)]
            assert both == alone
            seen |= set(both)
        assert len(seen) > 8  # answers and draws differ


def estimates(policy: Policy, likelihood: Likelihood, trajectory: Trajectory, draw: int) -> list[float]:
    """The estimated log-likelihood of each sample."""
    found = [0.0] * trajectory.group_size
    with torch.no_grad():
        for row in likelihood.rows([trajectory], draw):
            scores = likelihood.score(policy, [row]).log_prob.numpy()
            found[row.sample] += float((row.coefficient * scores).sum())
    return found
