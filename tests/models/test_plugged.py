"""Families that installed packages bring along by entry points, in whatever process; and names that clash."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from models import families
from models.files import CheckpointError
from models.images.checkpoint import read_image_spec
from models.images.families import FAMILIES as IMAGE_FAMILIES
from models.options import ModelOptions
from models.text.description import read_text_spec
from models.text.families import recognise
from tests.models.pipelines import image_options
from tests.models.text.published import PUBLISHED, write_checkpoint

AURORA = """
import dataclasses
from models.text.families import FAMILIES

AURORA = dataclasses.replace(
    FAMILIES["sdar"], name="aurora", model_types=("aurora",), architectures=("AuroraForCausalLM",), block_length=8
)
NUMBER = 7
"""
PICTURES = """
import dataclasses
from diffusers import StableDiffusionPAGPipeline
from models.images.families import FAMILIES

PAG = dataclasses.replace(FAMILIES["sd"], name="sd_pag", pipeline_class=StableDiffusionPAGPipeline)
"""
TEXTS = {"denoiserl.text_families": {"aurora": "aurora_models:AURORA"}}


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Puts a package with entry points onto the path, as pip would: modules, and a dist-info that names them."""
    entered = {**IMAGE_FAMILIES}.keys()

    def package(name: str, points: dict[str, dict[str, str]], **modules: str) -> Path:
        folder = tmp_path / "site" / name
        info = folder / f"{name}-1.0.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        lines = [f"[{group}]\n" + "".join(f"{k} = {v}\n" for k, v in named.items()) for group, named in points.items()]
        (info / "entry_points.txt").write_text("\n".join(lines))
        for module, code in modules.items():
            (folder / f"{module}.py").write_text(code)
        monkeypatch.syspath_prepend(str(folder))
        families.plugged.cache_clear()
        return folder

    yield package
    families.plugged.cache_clear()
    for known in (families_of_texts(), families_of_images()):
        for name in [name for name in known if name in ("aurora", "aurora_too", "sd_pag")]:
            del known[name]
    assert entered == IMAGE_FAMILIES.keys()


def families_of_texts() -> dict:
    from models.text import families as texts

    return texts._FAMILIES


def families_of_images() -> dict:
    from models.images import families as images

    return images._FAMILIES


@pytest.fixture
def aurora(tmp_path):
    published = PUBLISHED["sdar"]
    named = {"model_type": "aurora", "architectures": ["AuroraForCausalLM"]}
    config = {key: value for key, value in (published.config | named).items() if key != "block_size"}
    write_checkpoint(tmp_path / "aurora", dataclasses.replace(published, config=config))
    return tmp_path / "aurora"


def test_a_family_of_an_installed_package_is_recognised_in_any_process(install, aurora):
    with pytest.raises(CheckpointError, match=r"model_type='aurora'.*of no known family.*docs/models\.md"):
        read_text_spec(ModelOptions(path=str(aurora)))
    folder = install("aurora_package", TEXTS, aurora_models=AURORA)
    assert read_text_spec(ModelOptions(path=str(aurora))).block_length == 8
    assert read_text_spec(ModelOptions(path=str(aurora), family="aurora")).family == "aurora"
    # What an actor is: a process that was told nothing but the options.
    code = (
        "from models.options import ModelOptions; from models.text.description import read_text_spec;"
        f"print(read_text_spec(ModelOptions(path={str(aurora)!r})).family)"
    )
    path = os.pathsep.join([str(folder), *os.environ.get("PYTHONPATH", "").split(os.pathsep), os.getcwd()])
    told = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, timeout=60
    )
    assert told.stdout == "aurora\n", told.stderr


def test_a_family_of_images(install, pipelines, tmp_path):
    folder = tmp_path / "pag"
    folder.mkdir()
    for part in pipelines["sd"].iterdir():
        if part.name != "model_index.json":
            (folder / part.name).symlink_to(part)
    index = json.loads((pipelines["sd"] / "model_index.json").read_text())
    (folder / "model_index.json").write_text(json.dumps(index | {"_class_name": "StableDiffusionPAGPipeline"}))
    with pytest.raises(CheckpointError, match=r"_class_name='StableDiffusionPAGPipeline'.*docs/models\.md"):
        read_image_spec(image_options(folder))
    install("pag_package", {"denoiserl.image_families": {"sd_pag": "pag_models:PAG"}}, pag_models=PICTURES)
    assert read_image_spec(image_options(folder)).family == "sd_pag"


def test_a_name_that_is_taken_is_refused_by_name_whatever_model_is_asked_for(install):
    install("first_package", TEXTS, aurora_models=AURORA)
    install("second_package", TEXTS)
    with pytest.raises(CheckpointError, match=r"'aurora': one of \w+_package, one of \w+_package; uninstall one"):
        recognise({"model_type": "llada"})
    families.plugged.cache_clear()


def test_a_checkpoint_that_two_installed_families_claim_is_not_given_to_the_first(install):
    other = AURORA.replace('"aurora", model', '"aurora_too", model')
    install("first_package", TEXTS, aurora_models=AURORA)
    install("other_package", {"denoiserl.text_families": {"aurora_too": "other_models:AURORA"}}, other_models=other)
    with pytest.raises(CheckpointError, match=r"of the families aurora\w* and aurora\w*: name one with model\.family"):
        recognise({"model_type": "aurora"})


def test_the_name_of_a_declared_family_is_not_taken(install):
    install("taking_package", {"denoiserl.text_families": {"llada": "aurora_models:AURORA"}}, aurora_models=AURORA)
    with pytest.raises(CheckpointError, match=r"'llada': one of denoiserl, one of taking_package"):
        recognise({"model_type": "sdar"})


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("aurora", "aurora_models:NOTHING", r"'aurora' of odd_package .* cannot be imported: AttributeError"),
        ("aurora", "aurora_models:NUMBER", r"is a int, not a models\.text\.families\.TextFamily"),
        ("boreal", "aurora_models:AURORA", r"'boreal' of odd_package .* calls itself 'aurora'"),
    ],
)
def test_an_entry_point_that_is_no_family_is_named(install, name, value, message):
    install("odd_package", {"denoiserl.text_families": {name: value}}, aurora_models=AURORA)
    assert recognise({"model_type": "llada"}).name == "llada"  # whoever does not need it is not disturbed
    with pytest.raises(CheckpointError, match=message):
        recognise({}, name)
