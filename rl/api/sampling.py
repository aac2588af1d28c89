"""Drawing samples from a policy."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from configs.errors import UserError
from rl.api.policy import AnySampler, Policy
from rl.api.prompts import AnyPrompt, as_problems

if TYPE_CHECKING:
    import numpy as np

    from rl.data.problems import Problem
    from rl.drawing.animation import Animation
    from rollout.trajectory import Trajectory


@dataclass(frozen=True, eq=False)
class Samples:
    """Some samples of each prompt: a *group*."""

    problems: list[Problem]
    """One a group."""
    trajectories: list[Trajectory]
    """One a group: how its samples came about, with the log-probabilities of all decisions."""
    outputs: list[list[Any]]
    """[group][sample] a text, or an image (H, W, 3) of uint8."""
    ids: list[list[list[int]]] | None
    """[group][sample] tokens of a text."""
    sampler: AnySampler
    columns: dict[str, list[list[Any]]] = field(default_factory=dict)
    """[group][sample] what else rewards are told of each."""
    tokenizer: Any = None
    estimates: list[list[list[np.ndarray]]] | None = None
    """[group][sample][step] what each denoising step took the image to be, if `steps` asked for it."""

    def __len__(self) -> int:
        return len(self.problems)

    @property
    def prompts(self) -> list[str]:
        return [problem.prompt for problem in self.problems]

    @property
    def count(self) -> int:
        """Samples of a group."""
        return len(self.outputs[0])

    @property
    def texts(self) -> list[list[str]]:
        """[group][sample]"""
        if self.tokenizer is None:
            raise UserError("these samples are images: read .images")
        return self.outputs

    @property
    def images(self) -> list[list[np.ndarray]]:
        """[group][sample] (H, W, 3) uint8"""
        if self.tokenizer is not None:
            raise UserError("these samples are texts: read .texts")
        return self.outputs

    def states(self, group: int = 0, sample: int = 0) -> list[Any]:
        """How a sample came about: texts with `░` for masked positions, round by round, or what each denoising step
        took the image to be; the finished sample last."""
        if self.tokenizer is not None:
            from rl.records.decode import text_states

            return text_states(self.trajectories[group], sample, self.tokenizer)
        if self.estimates is None:
            raise UserError("the states of these images were not kept: sample with steps=True")
        return [*self.estimates[group][sample], self.outputs[group][sample]]

    def animation(self, group: int = 0, sample: int = 0, milliseconds: int = 250) -> Animation:
        """The states as an animated GIF, which a notebook shows and `.save(path)` writes."""
        from rl.drawing.animation import animated

        return animated(self.states(group, sample), milliseconds)


def sample(
    policy: Policy,
    prompts: AnyPrompt | Iterable[AnyPrompt],
    count: int = 1,
    *,
    sampler: AnySampler | dict[str, Any] | str | None = None,
    seed: int = 0,
    steps: bool = False,
) -> Samples:
    """`count` samples of each prompt.

    Equal arguments give equal samples, whatever else was drawn before: noise is a function of seed, prompt's place and
    sample's place.

    Args:
        prompts: texts, lists of chat messages, or problems (`rl.problems`), which rewards may need.
        sampler: None is the policy's own, as in training; `"greedy"`; a mapping of options to change, such as
            `{"temperature": 0.7}` or `{"kernel": "ddim", "eta": 1.0}`; or a whole section of options.
        steps: keep what each denoising step took an image to be; a text is always known step by step.

    Raises:
        DataError: a prompt is longer than the model or `data.max_prompt_tokens` allows.
        ConfigError: the sampler has no such option.
    """
    from rl.modality.samples import sample_request

    if count < 1:
        raise UserError(f"count={count}: draw at least one sample of each prompt")
    wanted = as_problems(prompts)
    options = policy.sampler(sampler)
    encoded = [policy.modality.prompt(problem) for problem in wanted]
    request = sample_request(seed, [problem.id for problem in wanted], encoded, count, options)
    estimates: list[list[Any]] | None = None
    if policy.kind == "image" and steps:
        estimates = [[] for _ in request.uids]
        trajectories, completions, _ = policy.worker.run(request, _observer(policy, estimates))  # type: ignore[call-arg]
    else:
        trajectories, completions, _ = policy.worker.run(request)

    def grouped(values: Sequence[Any]) -> list[list[Any]]:
        return [list(values[start : start + count]) for start in range(0, len(values), count)]

    return Samples(
        problems=wanted,
        trajectories=list(trajectories),
        outputs=grouped(completions.outputs),
        ids=None if completions.ids is None else grouped(completions.ids),
        sampler=options,
        columns={name: grouped(values) for name, values in completions.columns.items()},
        tokenizer=policy.tokenizer if policy.kind == "text" else None,
        estimates=None if estimates is None else grouped(estimates),
    )


def _observer(policy: Policy, estimates: list[list[Any]]) -> Any:
    def observe(first: int, step: int, denoised: Any) -> None:
        for offset, image in enumerate(policy.codec.decode(denoised).cpu().numpy()):
            estimates[first + offset].append(image)

    return observe
