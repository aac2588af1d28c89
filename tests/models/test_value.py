"""Value networks: zero at first, the right weights trained, global random state left alone, all inputs read."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from models.images.checkpoint import load_image_policy, read_prompt_width
from models.images.value import ImageValue
from models.lora import add_adapters, trainable_parameters
from models.options import LoraOptions
from models.text.value import text_value
from tests.models.pipelines import NAMES, image_options, random_inputs, tiny_pipeline
from tests.tiny import tiny_policy


@pytest.mark.parametrize("family", ["sdar", "llada", "dream"])
def test_a_text_s_value_is_one_number_a_place_and_zero(family):
    state = torch.get_rng_state()
    network = text_value(tiny_policy(family))
    assert torch.equal(torch.get_rng_state(), state)
    ids = torch.randint(0, 7, (1, 12), generator=torch.Generator().manual_seed(0))
    position = torch.arange(12)[None]
    read = torch.stack([torch.zeros(4, dtype=torch.long), torch.arange(4) + 8])
    values = network(ids, position, torch.zeros_like(position), torch.zeros_like(position), read)
    assert values.shape == (4, 1)
    assert values.dtype is torch.float32
    assert (values == 0).all()
    values.sum().backward()
    assert network.network.lm_head.weight.grad.abs().max() > 0
    assert set(trainable_parameters(network)) == {name for name, _ in network.named_parameters()}


def test_with_adapters_they_and_the_head_are_trained():
    policy = tiny_policy("llada")
    add_adapters(policy, LoraOptions(rank=2, alpha=4.0), seed=0)
    trained = set(trainable_parameters(text_value(policy)))
    assert "network.lm_head.weight" in trained
    assert len(trained) > 1
    assert all("lora" in name for name in trained - {"network.lm_head.weight"})


@pytest.mark.parametrize("family", NAMES)
def test_an_image_s_value_fits_every_family_and_is_zero(family, tmp_path):
    tiny_pipeline(family).save_pretrained(tmp_path)
    state = torch.get_rng_state()
    network = ImageValue(4, read_prompt_width(image_options(tmp_path)), seed=1)
    assert torch.equal(torch.get_rng_state(), state)
    values = network(**inputs(family, tmp_path))
    assert values.shape == (3,)
    assert (values == 0).all()


def test_an_image_s_value_reads_latents_time_and_prompt(tmp_path):
    tiny_pipeline("sd").save_pretrained(tmp_path)
    given = inputs("sd", tmp_path)
    network = learned(seed=1)
    before = network(**given)
    assert before.std() > 0
    for name in given:
        changed = network(**{**given, name: given[name] * 0.5})
        assert ((changed - before).abs() > 1e-4).all(), name
    assert torch.equal(learned(seed=1)(**given), before)
    assert not torch.equal(learned(seed=2)(**given), before)


def learned(seed: int) -> ImageValue:
    network = ImageValue(4, 32, seed)
    torch.nn.init.normal_(network.head.weight, generator=torch.Generator().manual_seed(0))
    return network


def inputs(family: str, folder: Path) -> dict[str, torch.Tensor]:
    found = random_inputs(load_image_policy(image_options(folder)))
    return {name: found[name] for name in ("latents", "time", "embeds")}
