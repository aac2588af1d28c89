"""A folder that cannot be read names what lies there and one command, and that command mends it."""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

import models
from models.files import CheckpointError
from models.images.checkpoint import check_image_weights, load_image_policy, load_prompt_encoder
from models.mending import mend
from models.options import ModelOptions
from models.text.checkpoint import load_text_policy
from rl.cli import app
from tests.models.pipelines import image_options

EMBEDDED = Path(models.__file__).parent / "tiny"


@pytest.fixture
def scenes(tmp_path):
    return shutil.copytree(EMBEDDED / "scenes", tmp_path / "scenes copy")


def follow(error: CheckpointError) -> None:
    """Runs the command that the message names, as a shell would."""
    command = re.search(r"denoiserl (mend '[^']*'(?: --from \S+)?|mend \S+(?: --from \S+)?)", str(error))
    assert command is not None, error
    result = CliRunner().invoke(app, shlex.split(command[1]), catch_exceptions=False)
    assert result.exit_code == 0, result.output


def same(folder: Path, half: bool = False) -> None:
    options, original = image_options(folder), image_options(EMBEDDED / "scenes")
    pairs = zip(load_image_policy(options).parameters(), load_image_policy(original).parameters(), strict=True)
    assert all(torch.equal(a, b.half().float() if half else b) for a, b in pairs)


def test_half_precision_variants(scenes):
    weights = [*scenes.glob("*/*model.safetensors")]
    assert len(weights) == 5
    for file in weights:
        save_file(
            {name: tensor.half() for name, tensor in load_file(file).items()}, file.with_suffix(".fp16.safetensors")
        )
        file.unlink()
    with pytest.raises(
        CheckpointError, match=r"There is diffusion_pytorch_model\.fp16\.safetensors instead"
    ) as refused:
        check_image_weights(image_options(scenes))
    follow(refused.value)
    check_image_weights(image_options(scenes))
    same(scenes, half=True)


def test_pickles_in_shards_are_read_and_nothing_of_them_is_run(scenes, tmp_path):
    file = scenes / "transformer" / "diffusion_pytorch_model.safetensors"
    tensors = list(load_file(file).items())
    file.unlink()
    for shard in (0, 1):
        torch.save(dict(tensors[shard::2]), file.with_name(f"diffusion_pytorch_model-0000{shard + 1}-of-00002.bin"))
    encoder = scenes / "text_encoder" / "model.safetensors"
    torch.save(load_file(encoder), encoder.with_name("pytorch_model.bin"))
    encoder.unlink()
    with pytest.raises(CheckpointError, match=r"There is diffusion_pytorch_model-00001-of-00002\.bin, ") as refused:
        load_image_policy(image_options(scenes))
    follow(refused.value)
    same(scenes)
    load_prompt_encoder(image_options(scenes))

    (tmp_path / "evil").mkdir()
    shutil.copy(EMBEDDED / "block" / "config.json", tmp_path / "evil")
    torch.save({"weight": Path}, tmp_path / "evil" / "pytorch_model.bin")  # not a tensor: a pickle that imports
    with pytest.raises(CheckpointError, match=r"pytorch_model\.bin: cannot be read as weights alone"):
        mend(tmp_path / "evil")


def test_a_language_model_of_pickles(tmp_path):
    folder = shutil.copytree(EMBEDDED / "block", tmp_path / "block")
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"There is pytorch_model\.bin instead") as refused:
        load_text_policy(ModelOptions(path=str(folder)))
    follow(refused.value)
    loaded, _ = load_text_policy(ModelOptions(path=str(folder)))
    original, _ = load_text_policy(ModelOptions(path="tiny/block"))
    assert all(torch.equal(a, b) for a, b in zip(loaded.parameters(), original.parameters(), strict=True))


def test_a_missing_component(scenes):
    shutil.rmtree(scenes / "tokenizer_2")
    with pytest.raises(
        CheckpointError, match=r"tokenizer_2: no such folder.* there is model_index\.json, sch"
    ) as refused:
        load_prompt_encoder(image_options(scenes))
    follow(CheckpointError(str(refused.value).replace("OWNER/NAME", "tiny/scenes")))
    load_prompt_encoder(image_options(scenes))
    with pytest.raises(CheckpointError, match="nothing"):
        mend(scenes)


def test_what_cannot_be_mended_here_is_named_with_the_command_that_fetches_it(scenes, tmp_path):
    (scenes / "vae" / "diffusion_pytorch_model.safetensors").unlink()
    fetch = rf"There is config\.json\. hf download OWNER/NAME vae/diffusion_\S+ --local-dir '{scenes}'"
    with pytest.raises(CheckpointError, match=fetch):
        check_image_weights(image_options(scenes))
    cached = tmp_path / "models--acme--art" / "snapshots" / "1"
    shutil.copytree(scenes, cached)
    with pytest.raises(
        CheckpointError, match=r"acme/art has no such file on the hub: hf download acme/art --local-dir"
    ):
        check_image_weights(image_options(cached))
    (scenes / "transformer" / "config.json").unlink()
    fetch = r"transformer/config\.json: no such file; there is diffusion_\S+ hf download OWNER/NAME transformer/config"
    with pytest.raises(CheckpointError, match=fetch):
        check_image_weights(image_options(scenes))
    block = shutil.copytree(EMBEDDED / "block", tmp_path / "block")
    (block / "tokenizer.json").unlink()
    with pytest.raises(CheckpointError, match=r"but chat_template\.jinja, config\.json.*hf download OWNER/NAME tok"):
        load_text_policy(ModelOptions(path=str(block)))
    with pytest.raises(CheckpointError, match=r"is a file.*from_single_file"):
        load_text_policy(ModelOptions(path=str(block / "model.safetensors")))
