"""The command line: what `denoiserl config` prints, how mistakes are reported, what it must not import."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import suppress

import pytest
import yaml
from omegaconf import OmegaConf

from configs.schema import Config
from rl import cli


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["denoiserl", *arguments])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    return int(caught.value.code or 0)


def test_output_that_is_lost_fails_what_has_nothing_else(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    full = open("/dev/full", "w")  # noqa: SIM115 - to close it fails as well
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", full)
        assert run(patch, "config", "recipe=quickstart") == 1
    assert capsys.readouterr().err == "error: standard output cannot be written: [Errno 28] No space left on device\n"
    with suppress(OSError):
        full.close()


def test_config_prints_valid_yaml_with_its_sources(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "config", "recipe=quickstart", "algorithm.clip=0.3", 'run.name="two\nlines"') == 0
    printed = capsys.readouterr().out
    header = [line for line in printed.splitlines() if line.startswith("#")]
    assert header[1] == "#   configs/schema.py"
    assert header[-4:] == [
        "#   configs/recipe/quickstart.yaml",
        "#   recipe=quickstart",
        "#   algorithm.clip=0.3",
        '#   run.name="two lines"',
    ]
    tree = OmegaConf.merge(OmegaConf.structured(Config), yaml.safe_load(printed))
    assert tree.algorithm.clip == 0.3
    assert tree.run.name == "two\nlines"


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("algorithm.clop=1", "error: algorithm.clop does not exist; did you mean algorithm.clip?"),
        ("rollout.group_size=1", "a group of one has no spread"),
    ],
)
def test_mistakes_are_one_message_and_exit_code_2(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], override: str, expected: str
) -> None:
    assert run(monkeypatch, "config", "recipe=quickstart", override) == 2
    error = capsys.readouterr().err
    assert expected in error
    assert "Traceback" not in error


FOUND_AT_ONCE = {
    "algorithm=flow_grpo": "error: algorithm=flow_grpo is for image models, and this one has model.modality=text",
    "recipe=quickstart_image algorithm=diffu_grpo": "error: algorithm=diffu_grpo is for text models",
    "recipe=quickstart_image model.path=/nowhere": "error: checkpoint '/nowhere': there is no such folder",
    "data.train.name=nowhere.jsonl": "error: data.train.name=nowhere.jsonl: there is no such file",
    "cluster.learner_gpus=1": "this machine has 0: set cluster.learner_gpus=0 and cluster.rollout_gpus=0",
    "cluster.cpus=900": "the job needs 1800 CPU (2 processes), this machine has ",
}


def test_mistakes_are_found_without_torch() -> None:
    """And so within three seconds, in words that fit them. Some were found 71 to 311 s later, on Ray."""
    script = (
        "import sys\n"
        "from rl.cli import main\n"
        f"for options in {list(FOUND_AT_ONCE)}:\n"
        "    sys.argv = ['denoiserl', 'train', 'recipe=quickstart', *options.split()]\n"
        "    try: main()\n"
        "    except SystemExit as end: print('exit', end.code, options, file=sys.stderr)\n"
        "assert 'torch' not in sys.modules, 'torch is imported'\n"
    )
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    finished = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, env=environment, check=False
    )
    assert finished.returncode == 0, finished.stderr
    for options, expected in FOUND_AT_ONCE.items():
        said, _, rest = finished.stderr.partition(f"exit {1 if 'cluster' in options else 2} {options}\n")
        assert expected in said.splitlines()[-1], finished.stderr
        finished.stderr = rest


def test_config_says_what_does_less_than_it_says(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Beside the YAML, which stays what it is."""
    assert run(monkeypatch, "config", "recipe=quickstart", "algorithm.optimizer.warmup_updates=500") == 0
    printed = capsys.readouterr()
    assert printed.err.startswith("note: algorithm.optimizer.warmup_updates=500 is not over after run.updates=")
    assert "note:" not in printed.out


def test_config_needs_neither_torch_nor_ray() -> None:
    script = (
        "import sys; sys.argv = ['denoiserl', 'config', 'recipe=quickstart']\n"
        "from rl.cli import main\n"
        "try: main()\n"
        "finally: print('LOADED', sorted({'torch', 'ray', 'transformers', 'deepspeed'} & set(sys.modules)))"
    )
    finished = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert finished.stdout.endswith("LOADED []\n"), finished.stderr
