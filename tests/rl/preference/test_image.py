"""`denoiserl train-reward` of pictures: which colour is preferred, and the reward that comes of it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional
from transformers import CLIPImageProcessor

from configs.errors import UserError
from models.options import Modality
from rewards.images.dual_encoder import DualEncoder, text_image_similarity
from rewards.model_folder import RECORD, ModelFolderError
from rl.preference.image import log_odds
from rl.preference.options import PreferenceOptions
from rl.preference.pairs import read_pairs
from rl.preference.training import train_reward
from tests.rewards.images.test_dual_encoder import painted, tokenizer, untrained
from tests.rl.preference.trained_here import write

PROMPTS = [first + second for first in "abcdefgh" for second in "stuvwxyz"]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pairs of which the red picture is chosen, and the model that was trained on half of them."""
    folder = tmp_path_factory.mktemp("scorer")
    untrained().save_pretrained(folder / "base")
    tokenizer().save_pretrained(folder / "base")
    CLIPImageProcessor(size={"shortest_edge": 16}, crop_size=16).save_pretrained(folder / "base")
    for place in range(8):
        for name, picture in zip(("red", "blue"), painted(["red", "blue"], place), strict=True):
            array = (picture.permute(1, 2, 0) * 255).round().byte().numpy()
            Image.fromarray(array).save(folder / f"{name}{place}.png")
    rows = [
        {"prompt": prompt, "chosen": f"red{place % 8}.png", "rejected": f"blue{place % 8}.png"}
        for place, prompt in enumerate(PROMPTS)
    ]
    write(folder / "pairs.jsonl", rows)
    judged = train_reward(options(folder, "model"))
    assert judged.accuracy.value == 1.0
    return folder


def options(root: Path, output: str) -> PreferenceOptions:
    return PreferenceOptions(
        str(root / "pairs.jsonl"),
        str(root / "base"),
        str(root / output),
        modality=Modality.image,
        held_out=0.5,
        epochs=2,
        batch_size=8,
        learning_rate=3e-3,
    )


def test_the_loss_is_the_softmax_over_two_similarities(root: Path) -> None:
    encoder = DualEncoder(str(root / "base"), "cpu")
    pairs = read_pairs(root / "pairs.jsonl", Modality.image)[:3]
    with torch.no_grad():
        found = functional.logsigmoid(log_odds(encoder, pairs))
        for pair, value in zip(pairs, found, strict=True):
            pictures = torch.stack([_tensor(pair.chosen), _tensor(pair.rejected)])
            similarity = encoder.pictures(pictures) @ encoder.texts([str(pair.prompt)])[0]
            expected = (encoder.model.logit_scale.exp() * similarity).log_softmax(0)[0]
            assert value.item() == pytest.approx(expected.item(), abs=1e-5)


def test_the_model_is_a_reward_with_a_gradient(root: Path) -> None:
    pictures = painted(["red", "blue"], 99).requires_grad_(True)
    red, blue = text_image_similarity.of_images(pictures, prompts=["as", "as"], path=str(root / "model"))
    assert red > blue
    red.backward()
    assert pictures.grad is not None
    assert pictures.grad[0].abs().sum() > 0


def test_the_same_again_is_the_same_to_the_bit(root: Path) -> None:
    (root / "again").mkdir()
    train_reward(options(root, "again/model"))
    first, second = (json.loads((folder / "model" / RECORD).read_text()) for folder in (root, root / "again"))
    assert first == second


def test_a_damaged_model_and_a_base_that_is_none_are_refused(root: Path, tmp_path: Path) -> None:
    train_reward(options(root, "broken"))
    weights = root / "broken" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    with pytest.raises(ModelFolderError, match="it is incomplete"):
        text_image_similarity.of_images(painted(["red"], 0), prompts=["as"], path=str(root / "broken"))
    wrong = options(root, "none")
    wrong.base = str(tmp_path)
    with pytest.raises(UserError, match="base="):
        train_reward(wrong)
    assert not (root / "none").exists()


def _tensor(file: object) -> torch.Tensor:
    return torch.from_numpy(np.array(Image.open(str(file)))).permute(2, 0, 1).float() / 255
