"""What is saved of an engine brings back the same next update, to the bit, and holds nothing that could run."""

from __future__ import annotations

import json
from itertools import product
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from configs.algorithm_options import OptimizerOptions
from rl.learner.engine import Engine
from rl.learner.optimizer_state import StateError, load_state, save_state, state_bytes
from rl.learner.state_files import InFolder, InMemory
from tests.rl.support.ranks import on_two_ranks

OPTIONS = OptimizerOptions(learning_rate=0.05, weight_decay=0.1, max_grad_norm=1.0)
CELLS = [(0, False), *product((1, 2, 3), (False, True))]


class Network(nn.Module):
    """Odd sizes, which ZeRO pads and cuts in the middle, and a frozen part."""

    def __init__(self, width: int = 7) -> None:
        super().__init__()
        self.first = nn.Linear(5, width)
        self.frozen = nn.Linear(width, width).requires_grad_(False)
        self.last = nn.Linear(width, 3, bias=False)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.last(torch.tanh(self.frozen(self.first(inputs))))


def engine_of(zero_stage: int, bf16: bool, seed: int = 0, width: int = 7) -> Engine:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = Network(width)
    return Engine(network, OPTIONS, zero_stage=zero_stage, bf16=bf16)


def train(engine: Engine, updates: range, rank: int = 0) -> None:
    dtype = next(engine.module.parameters()).dtype
    for update in updates:
        generator = torch.Generator().manual_seed(update * 10 + rank)
        inputs = torch.randn(4, 5, generator=generator).to(dtype)
        engine.backward(engine(inputs).float().square().sum())
        engine.update(0.05)


def seen(engine: Engine) -> dict[str, Tensor]:
    parameters = dict(engine.module.named_parameters())
    with engine.gathered(list(parameters.values())):
        return {name: parameter.detach().clone() for name, parameter in parameters.items()}


def there_and_back(zero_stage: int, bf16: bool, folder: Path, rank: int = 0) -> tuple[dict, dict, dict]:
    """The weights that an uninterrupted engine ends with, those of one that was saved after two updates of four, and
    those that the latter had when it had been loaded; the frozen ones are the same in all."""
    straight = engine_of(zero_stage, bf16)
    train(straight, range(2), rank)
    save_state(straight, InFolder(folder))
    at_the_save = seen(straight)
    train(straight, range(2, 4), rank)
    resumed = engine_of(zero_stage, bf16)
    with torch.no_grad(), resumed.gathered([resumed.module.first.weight], changed=True):
        resumed.module.first.weight.zero_()  # whatever the engine began with
    load_state(resumed, folder)
    assert resumed.updates == resumed.deepspeed.global_steps == 2
    loaded = seen(resumed)
    assert all(torch.equal(loaded[name], at_the_save[name]) for name in loaded)
    train(resumed, range(2, 4), rank)
    return seen(straight), seen(resumed), at_the_save


@pytest.mark.parametrize(("zero_stage", "bf16"), CELLS)
def test_updates_go_on_as_if_nothing_had_been_saved(rank, tmp_path, zero_stage, bf16):
    straight, resumed, at_the_save = there_and_back(zero_stage, bf16, tmp_path)
    for name, expected in straight.items():
        torch.testing.assert_close(resumed[name], expected, rtol=0, atol=0, msg=name)
        assert torch.equal(expected, at_the_save[name]) == name.startswith("frozen")


def test_the_files_are_fp32_numbers_by_parameter_name_in_every_layout(rank, tmp_path):
    saved = {}
    for zero_stage in (0, 1, 2, 3):
        engine = engine_of(zero_stage, bf16=False)
        train(engine, range(2))
        folder = tmp_path / str(zero_stage)
        save_state(engine, InFolder(folder))
        assert sorted(path.name for path in folder.iterdir()) == ["optimizer-00000.safetensors", "optimizer.json"]
        memory = InMemory()
        save_state(engine, memory.within("value"))
        assert {name: content.tobytes() for name, content in memory.files.items()} == {
            f"value/{path.name}": path.read_bytes() for path in folder.iterdir()
        }
        saved[zero_stage] = load_file(folder / "optimizer-00000.safetensors")
        assert json.loads((folder / "optimizer.json").read_text())["updates"] == 2
    trained = ("first.weight", "first.bias", "last.weight")
    assert state_bytes(engine) == sum(tensor.nbytes for tensor in saved[3].values())
    for tensors in saved.values():
        assert tensors.keys() == {f"{name}/{part}" for name in trained for part in ("weight", "exp_avg", "exp_avg_sq")}
        for name, tensor in tensors.items():
            assert tensor.dtype == torch.float32
            torch.testing.assert_close(tensor, saved[0][name], rtol=1e-5, atol=1e-7)
    assert saved[3]["first.weight/exp_avg_sq"].abs().sum() > 0


def test_large_states_are_cut_into_files(rank, tmp_path, monkeypatch):
    monkeypatch.setattr("rl.learner.optimizer_state.SHARD_BYTES", 100)
    straight, resumed, _ = there_and_back(0, False, tmp_path)
    assert len(list(tmp_path.glob("optimizer-*.safetensors"))) == 2
    assert all(torch.equal(straight[name], resumed[name]) for name in straight)


def test_what_was_never_updated_is_saved_without_moments(rank, tmp_path):
    engine = engine_of(0, False)
    save_state(engine, InFolder(tmp_path))
    again = engine_of(0, False, seed=1)
    load_state(again, tmp_path)
    expected = seen(engine)
    assert all(torch.equal(found, expected[name]) for name, found in seen(again).items() if "frozen" not in name)
    train(again, range(1))


@pytest.mark.parametrize("change", ["width", "names"])
def test_another_model_is_refused(rank, tmp_path, change):
    save_state(engine_of(0, False), InFolder(tmp_path))
    other = engine_of(0, False, width=6 if change == "width" else 7)
    if change == "names":
        other.module.first.bias.requires_grad_(False)
    with pytest.raises(StateError, match="has shape" if change == "width" else r"such as first\.bias"):
        load_state(other, tmp_path)


def _comes_back(zero_stage: int, bf16: bool, folder: Path, rank: int) -> bool:
    straight, resumed, _ = there_and_back(zero_stage, bf16, folder, rank)
    return all(torch.equal(straight[name], resumed[name]) for name in straight)


@pytest.mark.slow
@pytest.mark.processes
@pytest.mark.parametrize("cell", [(0, False), (2, True), (3, True)])
def test_two_ranks_go_on_as_if_nothing_had_been_saved(tmp_path, cell):
    assert on_two_ranks(_comes_back, *cell, tmp_path) == [True, True]
