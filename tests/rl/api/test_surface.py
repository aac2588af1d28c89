"""The names of the library: there, listed, and free: importing them loads no heavy library."""

from __future__ import annotations

import subprocess
import sys

import pytest

import rl

HEAVY = ("torch", "ray", "deepspeed", "transformers", "diffusers", "pandas")


def loaded_by(statement: str) -> set[str]:
    """Heavy libraries that a fresh process has after the statement."""
    program = f"{statement}\nimport sys\nprint(*(name for name in {HEAVY} if name in sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_every_name_is_free():
    assert loaded_by("from rl import *\nassert callable(compose) and callable(train) and callable(loss)") == set()
    assert loaded_by("import rl\ndir(rl)") == set()
    assert loaded_by("import torch") == {"torch"}  # the control


def test_composing_and_registering_are_free():
    program = "from rl import compose, register\ncompose('quickstart')\nregister('advantage', lambda r: r, name='own')"
    assert loaded_by(program) == set()


def test_the_names_are_listed_and_found():
    assert 10 <= len(rl.__all__) <= 16
    assert rl.__all__ == sorted(rl.__all__, key=lambda name: (name.islower(), name))
    assert set(rl.__all__) <= set(dir(rl))
    for name in rl.__all__:
        assert getattr(rl, name).__doc__, name


def test_an_unknown_name_is_refused_with_those_there_are():
    with pytest.raises(AttributeError, match=r"'sampel'.*compose.*sample"):
        _ = rl.sampel
