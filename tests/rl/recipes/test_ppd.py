"""PPD, as docs/preferences.md has it, for two users: one who likes digits bold and one who likes them thin.

The embedded digits model learns from pictures and vectors made by the page's own code; its commands and its code for
diffusers then run on what was learnt. Everything is in this process.
"""

from __future__ import annotations

import json
import os
from contextlib import chdir
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from PIL import Image
from safetensors.torch import load_file, save_file
from scipy.ndimage import grey_dilation, grey_erosion
from torch import Tensor

from configs.compose import compose
from models.lora import trainable_parameters, without_adapters
from rewards.images.digits import WORDS, digit_images
from rl.data.problems import Problem, open_source
from rl.data.tickets import TicketKind, derive_seed
from rl.driver.in_process import process_group
from rl.learner.groups import Group
from rl.modality.samples import sample_request
from rl.run.checkpoint import new_checkpoint
from tests.documentation import blocks, commands, run_command
from tests.rl.support.image_learning import Training

PAGE = "docs/preferences.md"
TRAIN, SAMPLE, SAMPLE_HALF, EXPORT = [command for command in commands(PAGE) if "users" in command]
VECTORS, DIFFUSERS = blocks(PAGE, "python")
UPDATES, PAIRS = 8, 8
HELD_OUT = range(40, 52)
"""Pairs that are not trained on; each picture is a pair for both users."""
LIKES_BOLD, LIKES_THIN, BETWEEN = "ada.npy", "bob.npy", "both.npy"
NEW = "new.npy"
"""Of one who likes bold digits too, from four pictures that nobody else has judged."""


@dataclass
class Learned:
    folder: Path
    training: Training
    before: dict[str, Tensor]
    """The policy's weights as they were loaded."""

    def problem(self, number: int, user: str, likes_bold: bool) -> Problem:
        """A pair of pictures from files, with the vector of `user` and the choice of one who likes that."""
        chosen, rejected = (number, number + 1) if likes_bold else (number + 1, number)
        images = tuple(self.folder / f"pictures/{n}.png" for n in (chosen, rejected))
        return Problem(f"pair/{number}", self.caption(number), {}, images=images, user=np.load(self.folder / user))

    @staticmethod
    def caption(number: int) -> str:
        return f"the digit {WORDS[int(digit_images('train')[1][number // 2])]}"


@pytest.fixture(scope="module")
def learned(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("ppd")
    with chdir(folder), process_group():
        write_pictures()
        names: dict[str, Any] = {}
        exec(compile(VECTORS, PAGE, "exec"), names)
        np.save(NEW, names["taste"]([(f"pictures/{n}.png", f"pictures/{n + 1}.png") for n in range(96, 104, 2)]))
        write_rows()
        composed = compose([*TRAIN.removeprefix("denoiserl train ").split(), "rollout.denoising.steps=6"])
        training = Training(composed.config, lambda _: 0.0)
        before = {name: tensor.clone() for name, tensor in training.policy.state_dict().items()}
        pairs = open_source(composed.config.data.train)
        for update in range(UPDATES):
            training.learner.step(update, [groups_of(training, pairs, update)], fresh=False)
        save_run(composed.resolved, training)
        yield Learned(folder, training, before)


def write_pictures() -> None:
    """Each digit twice, bold and thin; those of 0 to 7 are in the order that ada likes, those of 8 to 15 in bob's."""
    Path("pictures").mkdir()
    images, _ = digit_images("train")
    for number in range(0, 2 * HELD_OUT.stop, 2):
        bold, thin = (change(images[number // 2], (2, 2, 1)) for change in (grey_dilation, grey_erosion))
        for offset, image in enumerate((thin, bold) if number in range(8, 16) else (bold, thin)):
            Image.fromarray(image).save(f"pictures/{number + offset}.png")


def write_rows() -> None:
    rows, wanted = [], []
    for number in range(16, 2 * HELD_OUT.start, 2):
        pictures = [f"pictures/{number}.png", f"pictures/{number + 1}.png"]
        for user, (chosen, rejected) in ((LIKES_BOLD, pictures), (LIKES_THIN, pictures[::-1])):
            prompt = Learned.caption(number)
            rows.append({"prompt": prompt, "chosen": chosen, "rejected": rejected, "user": user})
    for user in (LIKES_BOLD, BETWEEN, LIKES_THIN):
        wanted.append({"prompt": "the digit three", "user": user})
    for name, lines in (("pairs", rows), ("wanted", wanted)):
        Path(f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def groups_of(training: Training, pairs: Any, update: int) -> list[Group]:
    """The pairs of an update, as `OfflineLoop.group` makes them."""
    chosen = np.random.default_rng(update).permutation(len(pairs))[:PAIRS]
    groups = []
    for place, index in enumerate(chosen.tolist()):
        seed = derive_seed(update, "corruption", place)
        trajectory = training.modality.offline_group(pairs[index], seed, update)
        groups.append(Group(trajectory, np.array([1, -1], np.float32), np.ones(2, bool)))
    return groups


def save_run(resolved: Any, training: Training) -> None:
    run = Path("runs/users")
    run.mkdir(parents=True)
    OmegaConf.save(resolved, run / "config.yaml")
    with new_checkpoint(run / "checkpoints", UPDATES, {"update": UPDATES}, keep=1) as folder:
        weights = {name: tensor.detach().clone() for name, tensor in trainable_parameters(training.policy).items()}
        save_file(weights, folder / f"weights-{UPDATES:06d}.safetensors")


def margins(learned: Learned, user: str, likes_bold: bool) -> np.ndarray:
    """(pairs,) what the loss takes the sigmoid of, over beta, for held-out pairs that are chosen by that taste."""
    training = learned.training
    problems = [learned.problem(2 * digit, user, likes_bold) for digit in HELD_OUT]
    groups = [training.modality.offline_group(problem, 7 + place, 0) for place, problem in enumerate(problems)]
    rows = training.learner.likelihood.rows(groups, 0)
    with torch.no_grad():
        scores = training.learner.likelihood.score(training.policy, rows).log_prob
        with without_adapters(training.policy) as reference:
            scores = scores - training.learner.likelihood.score(reference, rows).log_prob
    found = np.zeros(len(groups))
    for row, score in zip(rows, scores.tolist(), strict=True):
        found[row.trajectory] += score if row.sample == 0 else -score
    return found


def test_each_user_prefers_by_their_own_vector_and_not_by_the_others(learned: Learned) -> None:
    """Implicit preferences of held-out pairs: what the owner of the vector chooses, not what the other does."""
    for user, likes_bold in ((LIKES_BOLD, True), (LIKES_THIN, False)):
        assert (margins(learned, user, likes_bold) > 0).mean() > 0.8


def test_a_new_user_needs_no_training(learned: Learned) -> None:
    assert (margins(learned, NEW, likes_bold=True) > 0).mean() > 0.8


def test_a_mixture_that_nobody_trained_lies_between(learned: Learned) -> None:
    for likes_bold in (True, False):
        own, other = (LIKES_BOLD, LIKES_THIN) if likes_bold else (LIKES_THIN, LIKES_BOLD)
        high, middle, low = (margins(learned, user, likes_bold).mean() for user in (own, BETWEEN, other))
        assert low < middle < high


def test_the_model_itself_is_untouched(learned: Learned) -> None:
    policy, training = learned.training.policy, trainable_parameters(learned.training.policy)
    after = policy.state_dict()
    assert after.keys() == learned.before.keys()
    for name, tensor in learned.before.items():
        assert torch.equal(after[name], tensor) == (name not in training), name


def test_pictures_are_to_the_users_taste(learned: Learned) -> None:
    """From the same noise: bold digits have more ink than those for the mixture, and these more than thin ones."""
    training = learned.training
    users = (LIKES_BOLD, BETWEEN, LIKES_THIN)
    prompts = [
        training.modality.prompt(Problem(user, "the digit three", {}, user=np.load(learned.folder / user)))
        for user in users
    ]
    ink = []
    for prompt in prompts:
        request = sample_request(0, ["x"], [prompt], 8, training.modality.sampler(TicketKind.greedy))
        ink.append([image.mean() for image in training.generate(request)[1].outputs])
    bold, between, thin = np.array(ink)
    assert (bold > thin).all()
    assert thin.mean() < between.mean() < bold.mean()


def test_documented_commands_and_code_run_as_written(
    learned: Learned, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for command in (SAMPLE, SAMPLE_HALF):
        assert "12 images written to" in run_command(command, monkeypatch, capsys)
    assert "IP-Adapter of users for diffusers after 8 updates" in run_command(EXPORT, monkeypatch, capsys)
    assert not np.array_equal(*(np.asarray(Image.open(f"{name}.png")) for name in ("users", "half")))
    exported = load_file("adapter/ip_adapter.safetensors")
    assert exported["image_proj.proj.weight"].shape[1] == 12
    os.symlink(Path(__file__).parents[3] / "models/tiny/digits", "my-pipeline")
    names: dict[str, Any] = {}
    exec(compile(DIFFUSERS, PAGE, "exec"), names)
    assert isinstance(names["image"], Image.Image)


def test_a_prompt_of_nobody_is_refused(
    learned: Learned, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from rl import cli

    monkeypatch.setattr("sys.argv", ["denoiserl", "sample", "--run", "runs/users", "--prompt", "the digit one"])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    assert caught.value.code == 2
    assert "--prompt has no user" in capsys.readouterr().err
