"""Parts of users in one process: what they compute is what is used, and what is wrong with them is said."""

from __future__ import annotations

import sys
import threading
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

import models.parts
import rewards.registry
from configs.algorithm_options import Denominator
from configs.errors import ConfigError
from models.images import families as image_families
from models.images.checkpoint import read_image_spec
from models.options import Modality, ModelOptions
from models.parts import PartError
from models.text import families as text_families
from models.text.checkpoint import load_text_policy
from models.text.families import CheckpointError
from rewards.registry import RewardError
from rl import advantages, compose, load_policy, log_probs, loss, problems, register, sample, score
from rl.compatibility import check
from rl.driver.travel import travelling
from tests.models.pipelines import tiny_pipeline
from tests.models.text.published import PUBLISHED, write_checkpoint


@pytest.fixture
def my_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """A module of the user's."""
    (tmp_path / "my_parts.py").write_text("def median(rewards):\n    return rewards - sorted(rewards)[1]\n")
    monkeypatch.syspath_prepend(tmp_path)
    import my_parts

    yield my_parts
    del sys.modules["my_parts"]


def brief(completions, **kwargs):
    return [float(len(completion)) for completion in completions]


def test_what_can_be_imported_keeps_its_path(my_parts):
    assert register("advantage", my_parts.median) == "my_parts.median"
    assert register("reward", brief) == f"{__name__}.brief"
    assert not models.parts.GIVEN
    assert not rewards.registry.GIVEN
    local = register("advantage", lambda rewards: rewards, name="own")
    assert local == "__main__.own"
    assert models.parts.GIVEN.keys() == {"__main__.own"}
    for arguments, message in [
        (("advantages", brief), "there are reward, advantage"),
        (("advantage", 3), "takes a function"),
        (("advantage", lambda rewards: rewards), "name='my_part'"),
        (("reward", lambda completions: []), r"must accept \*\*kwargs"),
        (("text_family", brief), "not a models.text.families.TextFamily"),
    ]:
        with pytest.raises(ValueError, match=message):
            register(*arguments)


def test_an_advantage(my_parts):
    words = ["algorithm.advantage=custom", "algorithm.custom.advantage=my_parts.median"]
    config = compose("quickstart", *words)
    check(config.config, None)
    assert advantages([[0.0, 1.0, 5.0]], config).tolist() == [[-1.0, 0.0, 4.0]]
    for broken, message in [(lambda r: r[:1], r"shape \(1,\) for 3"), (lambda r: r / 0.0, "one finite number each")]:
        path = register("advantage", broken, name="broken")
        with pytest.raises(PartError, match=message), np.errstate(divide="ignore", invalid="ignore"):
            advantages([[0.0, 1.0, 5.0]], {"advantage": "custom", "custom": {"advantage": path}})


@pytest.mark.parametrize("name", ["advantage", "objective", "denominator"])
def test_a_part_of_an_algorithm_must_be_named_found_and_used(name):
    for words, message in [
        ([f"algorithm.{name}=custom"], f"set algorithm.custom.{name} to its dotted path"),
        ([f"algorithm.{name}=custom", f"algorithm.custom.{name}=no.such.part"], "cannot be found: ModuleNotFoundError"),
        ([f"algorithm.{name}=custom", f"algorithm.custom.{name}=__main__.gone"], "put it into a module"),
        ([f"algorithm.{name}=custom", f"algorithm.custom.{name}=math.pi"], "cannot be called"),
        ([f"algorithm.custom.{name}=math.sqrt"], "does nothing"),
    ]:
        with pytest.raises(ConfigError, match=message):
            check(compose("quickstart", *words).config, None)


def test_an_objective_has_its_value_and_gradient():
    def quadratic(log_ratio, advantage, options):
        return options.beta * log_ratio**2 - log_ratio * advantage

    path = register("objective", quadratic)
    options = {"objective": "custom", "custom": {"objective": path}, "beta": 0.5}
    new = torch.tensor([[-1.0, -2.0], [-0.5, -0.5]], requires_grad=True)
    old = torch.tensor([[-1.2, -1.9], [-0.5, -0.4]])
    result = loss(new, old, advantages=[1.0, -2.0], options=options)
    moved = (new - old).detach()
    worth = torch.tensor([[1.0], [-2.0]])
    assert float(result) == pytest.approx(float((0.5 * moved**2 - moved * worth).mean()), rel=1e-5)
    result.backward()
    torch.testing.assert_close(new.grad, (moved - worth) / 4)
    for broken, message in [
        (lambda log_ratio, advantage, options: log_ratio.sum(), "return a tensor of shape"),
        (lambda log_ratio, advantage, options: log_ratio.detach(), "lost the gradient"),
    ]:
        path = register("objective", broken, name="broken")
        with pytest.raises(PartError, match=message):
            loss(new, old, advantages=[1.0, -2.0], options={"objective": "custom", "custom": {"objective": path}})


def test_a_denominator_that_repeats_ours_gives_our_loss():
    new = torch.tensor([[-1.0, -2.0, -0.3], [-0.5, -0.5, -0.1]], requires_grad=True)
    old, mask = new.detach() + 0.1, [[True, True, False], [True, True, True]]
    again = {
        Denominator.token: lambda mask: (mask, mask.sum()),
        Denominator.sequence: lambda mask: (mask / mask.sum(-1, keepdims=True), len(mask)),
        Denominator.canvas: lambda mask: (mask, mask.size),
    }
    found = []
    for kind, function in again.items():
        path = register("denominator", function, name=kind.name)
        own = {"denominator": "custom", "custom": {"denominator": path}}
        for ratio in ("element", "sequence"):
            arguments = {"old": old, "advantages": [1.0, -2.0], "mask": mask}
            ours = loss(new, options={"denominator": kind.name, "ratio": ratio}, **arguments)
            assert float(loss(new, options={**own, "ratio": ratio}, **arguments)) == pytest.approx(
                float(ours), rel=1e-6
            )
            found.append(round(float(ours), 6))
    assert len(set(found)) == 3  # the control: the kinds differ
    path = register("denominator", lambda mask: (mask[:1], 1.0), name="broken")
    with pytest.raises(PartError, match="return finite weights of that shape"):
        loss(new, old, advantages=[1.0, -2.0], options={"denominator": "custom", "custom": {"denominator": path}})


def test_a_kernel_draws_and_replays():
    def constant(eta, level, following):
        return min(eta, following.noise)

    policy = load_policy(compose("quickstart_image", "rollout.denoising.steps=4"), device="cpu")
    path = register("kernel", constant)
    sampler = {"kernel": "custom", "custom_kernel": path, "eta": 0.2}
    samples = sample(policy, problems("quickstart_image", count=1), count=2, sampler=sampler)
    (trajectory,) = samples.trajectories
    assert trajectory.latents is not None
    assert path in trajectory.sampler
    (replayed,) = log_probs(policy, samples, "replay").per_decision()
    np.testing.assert_allclose(replayed.detach().numpy(), trajectory.logp, atol=1e-3)
    other = sample(policy, problems("quickstart_image", count=1), count=2, sampler={"kernel": "precise"})
    assert not np.array_equal(other.images[0][0], samples.images[0][0])
    too_much = register("kernel", lambda eta, level, following: 2 * following.noise + 1, name="too_much")
    with pytest.raises(ValueError, match=r"from 0 to following.noise"):
        sample(policy, "red", sampler={"kernel": "custom", "custom_kernel": too_much})
    with pytest.raises(PartError, match=r"set rollout.denoising.custom_kernel"):
        sample(policy, "red", sampler={"kernel": "custom"})
    for words, message in [
        (["rollout.denoising.kernel=custom"], "set custom_kernel to its dotted path"),
        (["rollout.denoising.kernel=custom", "rollout.denoising.custom_kernel=no.such"], "cannot be found"),
        (["rollout.denoising.custom_kernel=math.sqrt"], "does nothing with kernel"),
    ]:
        with pytest.raises(ConfigError, match=message):
            check(compose("quickstart_image", *words).config, None)


def test_contracts_of_earlier_runs_stay_what_they_were():
    policy = load_policy("tiny/scenes", device="cpu")
    trajectories = sample(policy, "red", sampler={"steps": 5}).trajectories
    assert "custom_kernel" not in trajectories[0].sampler


def test_a_text_family(tmp_path):
    import dataclasses

    write_checkpoint(tmp_path / "model", PUBLISHED["sdar"])
    own = dataclasses.replace(text_families.FAMILIES["sdar"], name="aurora", model_types=("aurora",), architectures=())
    path = register("text_family", own)
    policy, _ = load_text_policy(ModelOptions(path=str(tmp_path / "model"), family=path))
    assert policy.spec.family == "aurora"
    assert text_families.FAMILIES["aurora"] is own
    taken = dataclasses.replace(own, name="sdar", mask_id=3)
    with pytest.raises(CheckpointError, match="there is a family 'sdar' already"):
        register("text_family", taken)
    with pytest.raises(PartError, match="put it into a module"):
        load_text_policy(ModelOptions(path=str(tmp_path / "model"), family="__main__.gone"))


def test_an_image_family(tmp_path):
    import dataclasses

    tiny_pipeline("sd").save_pretrained(tmp_path / "sd")
    own = dataclasses.replace(image_families.FAMILIES["sd"], name="sd_own")
    options = ModelOptions(path=str(tmp_path / "sd"), modality=Modality.image)
    assert read_image_spec(options).family == "sd"
    assert read_image_spec(dataclasses.replace(options, family=register("image_family", own))).family == "sd_own"
    with pytest.raises(CheckpointError, match="is another one"):
        read_image_spec(dataclasses.replace(options, family="flux"))


def test_what_cannot_be_sent_is_refused_with_the_way_out():
    lock = threading.Lock()

    def guarded(completions, **kwargs):
        with lock:
            return [1.0 for _ in completions]

    with pytest.raises(RewardError, match=r"guarded cannot be sent.*Put it into a module"):
        score(guarded, ["a"])


def test_a_configuration_without_own_parts_travels_as_it_is():
    config = compose("quickstart").config
    assert travelling(config) is config
    own = compose("quickstart", f"reward.terms.answer.function={register('reward', lambda **k: [], name='own')}").config
    assert travelling(own) is not own
