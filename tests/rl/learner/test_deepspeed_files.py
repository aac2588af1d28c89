"""What DeepSpeed wrote is read as numbers: the same next update, to the bit, and nothing of the files is run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from rl.learner.deepspeed_files import MODEL, TAG, UnreadableFiles, read_engine
from rl.learner.engine import Engine
from rl.learner.optimizer_state import StateWriter, load_state
from rl.learner.state_files import InFolder
from tests.rl.learner.test_optimizer_state import engine_of, seen, train
from tests.rl.support.ranks import on_two_ranks

SLOW_IN_BF16 = pytest.param(1, True, marks=pytest.mark.slow)  # DeepSpeed has another optimizer for it
TRAINED = ("first.weight", "first.bias", "last.weight")


def save_as_deepspeed(engine: Engine, folder: Path) -> None:
    """As engines did before their states were numbers (format 1)."""
    engine.deepspeed.save_checkpoint(str(folder), tag=TAG, client_state={"updates": engine.updates}, save_latest=False)


def migrated(old: Path, new: Path) -> None:
    state, writer = read_engine(old, TRAINED), StateWriter(InFolder(new))
    for name, parts in state.parameters.items():
        writer.add(name, parts)
    writer.finish(state.updates, state.adam_steps)


def goes_on(zero_stage: int, bf16: bool, folder: Path, rank: int = 0) -> bool:
    """Whether an engine that goes on from the migrated files is the one that wrote them, two updates later."""
    straight = engine_of(zero_stage, bf16)
    train(straight, range(2), rank)
    save_as_deepspeed(straight, folder / "old")
    train(straight, range(2, 4), rank)
    torch.distributed.barrier()
    if rank == 0:
        migrated(folder / "old", folder / "new")
    torch.distributed.barrier()
    resumed = engine_of(zero_stage, bf16)
    with torch.no_grad():
        resumed.module.first.weight.zero_()  # whatever the engine began with
    load_state(resumed, folder / "new")
    assert resumed.updates == 2
    train(resumed, range(2, 4), rank)
    expected = seen(straight)
    return all(torch.equal(found, expected[name]) for name, found in seen(resumed).items())


@pytest.mark.parametrize(("zero_stage", "bf16"), [(0, False), (1, False), SLOW_IN_BF16, (2, False), (2, True)])
def test_updates_go_on_from_deepspeed_s_files(rank, tmp_path, zero_stage, bf16):
    assert goes_on(zero_stage, bf16, tmp_path)


@pytest.mark.slow
@pytest.mark.processes
@pytest.mark.parametrize("cell", [(0, False), (1, False), (2, True)])
def test_two_ranks_go_on_from_deepspeed_s_files(tmp_path, cell):
    """ZeRO cuts in the middle of a parameter; the pieces are put together."""
    assert on_two_ranks(goes_on, *cell, tmp_path) == [True, True]


def test_what_was_never_updated_has_no_moments(rank, tmp_path):
    for zero_stage in (0, 2):
        engine = engine_of(zero_stage, False)
        save_as_deepspeed(engine, tmp_path / str(zero_stage))
        state = read_engine(tmp_path / str(zero_stage), TRAINED)
        assert (state.updates, state.adam_steps) == (0, None)
        assert {name: parts.keys() for name, parts in state.parameters.items()} == {
            name: {"weight"} for name in TRAINED
        }
        assert torch.equal(state.parameters["first.weight"]["weight"], engine.module.first.weight)


class Touches:
    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> Any:
        return Path.touch, (self.file,)


@pytest.mark.parametrize("name", [MODEL, "zero_pp_rank_0_mp_rank_00_optim_states.pt"])
def test_a_pickle_that_would_touch_a_file_is_refused_and_touches_nothing(rank, tmp_path, name):
    engine = engine_of(1, False)
    save_as_deepspeed(engine, tmp_path)
    file, touched = tmp_path / TAG / name, tmp_path / "touched"
    states = torch.load(file, weights_only=False)
    torch.save({**states, "ds_version": Touches(touched)}, file)
    with pytest.raises(UnreadableFiles, match=r"names .*pathlib.*, which might run: nothing of it was loaded"):
        read_engine(tmp_path, TRAINED)
    assert not touched.exists()
    torch.load(file, weights_only=False)  # the control: whoever loads it as DeepSpeed does runs it
    assert touched.exists()


def test_nothing_is_run_though_the_list_of_names_misses_it(rank, tmp_path, monkeypatch):
    save_as_deepspeed(engine_of(0, False), tmp_path)
    file, touched = tmp_path / TAG / MODEL, tmp_path / "touched"
    torch.save({"module": Touches(touched)}, file)
    monkeypatch.setattr(torch.serialization, "get_unsafe_globals_in_checkpoint", lambda file: [])
    with pytest.raises(UnreadableFiles, match="more than numbers"):
        read_engine(tmp_path, TRAINED)
    assert not touched.exists()


def test_what_cannot_be_put_together_is_refused_by_name(rank, tmp_path):
    def refused(folder: Path, message: str, trained: tuple[str, ...] | None = TRAINED) -> None:
        with pytest.raises(UnreadableFiles, match=message):
            read_engine(folder, trained)

    for zero_stage in (0, 2, 3):
        engine = engine_of(zero_stage, False)
        train(engine, range(1))
        save_as_deepspeed(engine, tmp_path / str(zero_stage))
    refused(tmp_path / "3", "ZeRO stage 3")
    whole, cut = tmp_path / "0", tmp_path / "2"
    refused(whole, "the optimizer has 3 parameters, and 5 of the model", None)  # which are frozen, nobody knows
    refused(whole, r"parameter second\.bias is not in the model", ("first.weight", "first.bias", "second.bias"))
    refused(whole, "frozen.weight and its moments differ in shape", ("first.weight", "frozen.weight", "last.weight"))

    piece = next((cut / TAG).glob("zero_pp_rank_0*"))
    kept = piece.read_bytes()
    piece.rename(piece.with_name("zero_pp_rank_1_mp_rank_00_optim_states.pt"))
    refused(cut, "zero_pp_rank_1.*: a piece that is missing, or a file that nobody knows")
    piece.with_name("zero_pp_rank_1_mp_rank_00_optim_states.pt").unlink()
    states = torch.load(cut / TAG / MODEL, weights_only=True)
    for change, message in (
        ({"dp_world_size": 2}, "a piece that is missing"),
        ({"param_shapes": [{**states["param_shapes"][0], "last.weight": torch.Size([3, 8])}]}, "pieces of last.weight"),
        ({"mp_world_size": 2}, "2 parallel parts"),
        ({"param_shapes": None}, "not as the tested DeepSpeed wrote it"),
    ):
        piece.write_bytes(kept)
        torch.save({**states, **change}, cut / TAG / MODEL)
        refused(cut, message)
    (cut / TAG / MODEL).write_bytes(b"no archive")
    refused(cut, "not as `torch.save` writes it")
