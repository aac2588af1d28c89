"""What a judge may be asked: templates that show what they should and cannot be taken over."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from rewards.judge.rubric import picture_part
from rewards.judge.template import FOLDER, PAIR, SAMPLE, Template


@pytest.mark.parametrize("name", sorted(file.stem for file in FOLDER.glob("*.jinja")))
def test_packaged_templates_show_what_is_to_be_judged(name: str) -> None:
    needed = PAIR if name == "pairwise" else SAMPLE
    template = Template.named(name)
    template.check({*needed, "scores", "answer"}, needed[1:])
    values = dict.fromkeys(needed, "") | {name: f"<<{name}>>" for name in needed}
    text = template.render(**values, answer="<<answer>>", scores=["1", "2"])
    assert all(f"<<{each}>>" in text for each in needed)


def test_variables_that_nobody_gives_are_named() -> None:
    template = Template("mine", "{{ prompt }} {{ completion }} {{ refrence }}")
    with pytest.raises(ValueError, match=r"template mine asks for refrence; there are completion, prompt, reference"):
        template.check({"prompt", "completion", "reference"}, ("completion",))
    with pytest.raises(ValueError, match="never shows completion"):
        Template("mine", "{{ prompt }}").check({"prompt", "completion"}, ("completion",))


def test_a_variable_without_a_value_is_an_error_not_an_empty_text() -> None:
    with pytest.raises(ValueError, match=r"UndefinedError: 'dict object' has no attribute 'answer'"):
        Template("mine", "{{ completion.answer }}").render(completion={})


def test_a_template_that_is_none_says_where() -> None:
    with pytest.raises(ValueError, match="template mine, line 2: "):
        Template("mine", "{{ prompt }}\n{% if %}")
    with pytest.raises(ValueError, match="packaged ones: pairwise, quality, reference"):
        Template.named("qualty")


@pytest.mark.parametrize(
    "text",
    [
        "{{ completion.__class__.__mro__ }}",
        "{{ ''.__class__.__base__.__subclasses__() }}",
        "{{ cycler.__init__.__globals__.os.popen('id').read() }}",
        "{% set x = columns.append(1) %}{{ completion }}",
    ],
)
def test_a_template_reaches_nothing_outside(text: str) -> None:
    columns: list[int] = []
    with pytest.raises(ValueError, match=r"SecurityError|UndefinedError"):
        Template("mine", text).render(completion="x", columns=columns)
    assert columns == []


def test_what_a_sample_says_is_never_a_template(tmp_path: Path) -> None:
    attack = "{{ 7 * 7 }}{% raw %}{{ prompt.__class__ }}"
    assert Template("mine", "{{ completion }}").render(completion=attack) == attack
    file = tmp_path / "mine.jinja"
    file.write_text("{{ completion }}\n")
    assert Template.named(str(file)).render(completion="x") == "x"


def test_a_picture_travels_as_a_png_without_loss() -> None:
    image = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    (part,) = picture_part(image)
    kind, _, data = part["image_url"]["url"].partition(",")
    assert (part["type"], kind) == ("image_url", "data:image/png;base64")
    with Image.open(io.BytesIO(base64.b64decode(data))) as found:
        assert np.array_equal(np.asarray(found), image)
