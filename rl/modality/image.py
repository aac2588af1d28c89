"""Images: diffusion and flow models out of diffusers' pipelines."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cached_property, lru_cache, partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from PIL import Image
from rich.console import Console
from torch import Tensor

from cluster.weights import PackedWeights, load_weights
from configs.algorithm_options import LikelihoodKind, LikelihoodOptions
from configs.environment import check_environment
from configs.errors import UserError
from configs.schema import Config
from models.images.checkpoint import (
    check_image_weights,
    load_image_codec,
    load_image_policy,
    load_prompt_encoder,
    read_image_spec,
    read_prompt_limits,
    read_prompt_width,
)
from models.images.export import export_image_policy
from models.images.policy import ImagePolicy
from models.images.prompt_limits import ControlTokenError, PromptLimits, PromptTooLongError
from models.images.spec import Condition, ImagePrompt, ImageSpec
from models.images.value import ImageValue
from models.lora import trainable_parameters
from models.policy import Policy
from rewards.differentiable import DifferentiableTotal
from rewards.printable import printable
from rl.algorithm.requirements import differentiates_reward
from rl.compatibility import check
from rl.data.image_columns import pixels
from rl.data.problems import Problem
from rl.data.rows import DataError, TooLongError
from rl.data.tickets import TicketKind
from rl.drawing.pictures import before_after, grid, keep_images, strips
from rl.likelihood.image_elbo import Encode, ImageElbo, recorded
from rl.likelihood.image_replay import ImageReplay
from rl.likelihood.image_reward_gradient import ImageRewardGradient
from rl.modality.protocol import Judged, ShowOptions, answer_uids
from rl.modality.samples import sample_request
from rollout.branching import Tree, tree_at
from rollout.images.sampler import Schedule
from rollout.images.step_candidates import candidate_steps
from rollout.images.worker import ImageRolloutWorker
from rollout.options import DenoisingOptions, WindowOptions
from rollout.trajectory import NO_SAMPLER, ImageTrajectory
from rollout.worker import Completions

DEFAULT_OUTPUT = Path("samples.png")
ENCODED_CAPTIONS = 4096
"""Encoded captions that a learner keeps where it encodes them itself."""
LATENT_CACHE_BYTES = 2**30
"""Encoded images that a learner keeps for the next epoch of offline training."""


class ImageModality:
    def __init__(self, config: Config) -> None:
        self.config = config

    @cached_property
    def spec(self) -> ImageSpec:
        return read_image_spec(self.config.model)

    def check(self) -> None:
        check(self.config, self.spec)
        if differentiates_reward(self.config.algorithm):
            DifferentiableTotal(self.config.reward.terms)  # refuses terms without a gradient
        check_image_weights(self.config.model)

    @cached_property
    def prompt_limits(self) -> PromptLimits:
        return read_prompt_limits(self.config.model)

    def prompt(self, problem: Problem) -> ImagePrompt:
        if problem.conversation is not None:
            raise DataError(f"the prompt of {problem.id} is a conversation, and image models read a text")
        try:
            self.prompt_limits.check(problem.prompt)
        except PromptTooLongError as error:
            raise TooLongError(f"{problem.id}: {error}") from error
        except ControlTokenError as error:
            raise DataError(f"{problem.id}: {error}") from error
        return ImagePrompt(problem.prompt, self._user(problem))

    def _user(self, problem: Problem) -> np.ndarray | None:
        adapter, user = self.config.model.user_adapter, problem.user
        if adapter is None:
            return None  # a source then has no column for it
        if user is None:
            raise DataError(
                f"{problem.id} has no user, and this model makes pictures for users: show problems of a source whose "
                f"column `user` has their vectors"
            )
        if len(user) != adapter.dimension:
            raise DataError(
                f"the user of {problem.id} is a vector of {len(user)} numbers, and model.user_adapter.dimension="
                f"{adapter.dimension}: set it to the width of the vectors"
            )
        return user

    def sampler(self, kind: TicketKind) -> DenoisingOptions:
        """A greedy evaluation draws nothing behind the first noise. A sampled one draws at every step: a window that
        moves would make two evaluations differ by more than their policies. A denoising loss needs the finished image
        only, so nothing on the way is recorded for it."""
        denoising = self.config.rollout.denoising
        if self.config.algorithm.likelihood.kind is LikelihoodKind.elbo:
            denoising = replace(denoising, window=replace(denoising.window, trained_fraction=0.0))
        if kind is TicketKind.greedy:
            return denoising.greedy()
        if kind in (TicketKind.sampled, TicketKind.perturbed):
            return replace(denoising, window=WindowOptions(), evaluation_steps=None)
        return replace(denoising, evaluation_steps=None)

    def tree(self, update: int) -> Tree | None:
        branching, denoising = self.config.rollout.branching, self.config.rollout.denoising
        return None if branching is None else tree_at(branching, update, denoising.steps)

    def groups_per_prompt(self, kind: TicketKind) -> int:
        candidates = self.config.rollout.step_candidates
        if candidates is None or kind is not TicketKind.train:
            return 1
        return len(candidate_steps(candidates, Schedule(self.spec, self.config.rollout.denoising)))

    def rollout_worker(self, device: torch.device) -> ImageRolloutWorker:
        model = self.config.model
        policy, codec = self.policy(device), load_image_codec(model, device=device)
        return ImageRolloutWorker(
            policy, policy.prompt_encoder or load_prompt_encoder(model, device=device), codec, device
        )

    def policy(self, device: torch.device) -> ImagePolicy:
        return load_image_policy(self.config.model, device=device, adapter_seed=self.config.run.seed)

    def likelihood(self, policy: Policy, device: torch.device) -> ImageReplay | ImageElbo | ImageRewardGradient:
        spec, options = cast(ImagePolicy, policy).spec, self.config.algorithm.likelihood
        if options.kind is LikelihoodKind.reward_gradient:
            return self._reward_gradient(cast(ImagePolicy, policy), device)
        if options.kind is LikelihoodKind.elbo:
            encode = self._answer_encoder(device) if self.config.algorithm.advantage.offline else recorded
            return ImageElbo(spec, self.sampler(TicketKind.train), options, encode, device)
        return ImageReplay(spec, self.sampler(TicketKind.train), options, device)

    def value_network(self, device: torch.device) -> ImageValue:
        """In fp32 whatever the policy's precision: it is small."""
        width = read_prompt_width(self.config.model)
        return ImageValue(self.spec.latent_channels, width, self.config.run.seed).to(device)

    def exact_replay(self, policy: Policy, device: torch.device) -> ImageReplay | None:
        if self.config.algorithm.likelihood.kind is not LikelihoodKind.replay:
            return None  # no step is recorded
        return ImageReplay(cast(ImagePolicy, policy).spec, self.sampler(TicketKind.train), LikelihoodOptions(), device)

    def offline_group(self, problem: Problem, seed: int, update: int) -> ImageTrajectory:
        """The images as they are; the learner encodes them, where the VAE has a device."""
        images = [self._pixels(image, problem.id) for image in problem.images]
        count = len(images)
        return ImageTrajectory(
            ticket=0,
            update=update,
            version=update,
            seed=seed,
            prompt_id=problem.id,
            sampler=NO_SAMPLER,
            uid=answer_uids(seed, images, problem.id),
            logp=np.zeros((count, 1)),
            mask=np.ones((count, 1), bool),
            caption=problem.prompt,
            first_step=0,
            levels=np.zeros((0, 3)),
            guided=np.zeros(1, bool),
            user=self._user(problem),
            image=np.stack(images),
        )

    def _pixels(self, image: Any, problem_id: str) -> np.ndarray:
        found = pixels(image, problem_id)
        height, width = self._size()
        if found.dtype != np.uint8 or found.shape != (height, width, 3):
            raise DataError(
                f"the image of {problem_id} is {found.dtype} of shape {found.shape}; this model is trained on uint8 of "
                f"shape {(height, width, 3)} (rollout.denoising.height and width): convert or resize the data"
            )
        return found

    def finished(self, completions: Completions) -> np.ndarray:
        return np.ones(len(completions.outputs), bool)

    def made_up(self, samples: int) -> Completions:
        generator = np.random.default_rng(0)
        return Completions([generator.integers(0, 256, (*self._size(), 3), np.uint8) for _ in range(samples)])

    def cell(self, completion: np.ndarray, file: Path) -> str:
        file.parent.mkdir(exist_ok=True)
        Image.fromarray(completion).save(file.with_suffix(".png"))
        return f"{file.parent.name}/{file.name}.png"

    def rollout_metrics(self, sums: Mapping[str, float], samples: int) -> dict[str, float]:
        return {
            "steps_mean": sums["steps"] / samples,
            "trained_steps_mean": sums["trained_steps"] / samples,
            "forwards": sums["forwards"],
            "token_forwards": sums["token_forwards"],
        }

    def keep_pictures(self, prompts: list[str], completions: Completions, folder: Path) -> None:
        keep_images(prompts, completions.outputs, folder)

    def compare_pictures(self, before: Judged, after: Judged, target: Path) -> None:
        if before.folder.is_dir() and after.folder.is_dir():
            folders, values = (before.folder, after.folder), (before.values, after.values)
            before_after(folders, values, target, verdicts=before.verdicts)

    def show(
        self, weights: PackedWeights | None, problems: list[Problem], options: ShowOptions, console: Console
    ) -> None:
        """One picture: the samples of each prompt, or with `steps` each sample's estimates step by step and itself."""
        output = options.output or DEFAULT_OUTPUT
        if options.short:
            raise UserError("--short is for texts; the images are one picture as it is")
        if output.suffix.lower() != ".png":
            raise UserError(f"--output {output}: images are written as PNG; give it a name that ends in .png")
        self.check()
        prompts = [self.prompt(problem) for problem in problems]
        captions = [prompt.caption for prompt in prompts]
        worker = self.rollout_worker(torch.device("cpu"))
        if weights is not None:
            load_weights(trainable_parameters(worker.policy), weights)
        sampler = self.sampler(TicketKind.greedy if options.greedy else TicketKind.sampled)
        ids = [problem.id for problem in problems]
        request = sample_request(self.config.run.seed, ids, prompts, options.count, sampler)
        estimates: list[list[np.ndarray]] = [[] for _ in request.uids]

        def observe(first: int, step: int, denoised: Tensor) -> None:
            for offset, image in enumerate(worker.codec.decode(denoised).numpy()):
                estimates[first + offset].append(image)

        _, completions, _ = worker.run(request, observe if options.steps else None)
        count, images = options.count, completions.outputs
        if options.steps:
            rows = [[*steps, image] for steps, image in zip(estimates, images, strict=True)]
            strips([caption for caption in captions for _ in range(count)], rows, output)
        else:
            grid(captions, [images[i * count : (i + 1) * count] for i in range(len(captions))], output)
        for index, problem in enumerate(problems):
            console.print(printable(captions[index]), style="bold", markup=False)
            mine = list(images[index * count : (index + 1) * count])
            for sample, line in enumerate(options.verdicts(problem, mine, None).scores, start=1):
                if line:
                    console.print(printable(f"  sample {sample}: {line}"), style="dim", markup=False, highlight=False)
        console.print(f"{len(images)} {'image' if len(images) == 1 else 'images'} written to {output}", soft_wrap=True)

    def export(self, weights: PackedWeights, target: Path, adapter_only: bool, half: bool) -> str:
        share = self.config.model.text_encoder_share
        if share != 1:
            raise UserError(
                f"model.text_encoder_share={share} mixes the encodings of two encoders, and a pipeline folder holds "
                "the weights of one; set it to 1 in the run's config.yaml to export the tuned encoder alone"
            )
        policy = self.policy(torch.device("cpu"))
        load_weights(trainable_parameters(policy), weights)
        export_image_policy(policy, target, self.config.model.path, adapter_only=adapter_only, half=half)
        adapter = "LoRA weights" if self.config.model.user_adapter is None else "IP-Adapter of users"
        written = f"{adapter if adapter_only else policy.spec.family + ' pipeline'} for diffusers"
        segments = self.config.model.prompt_segments
        if segments > 1:  # no pipeline splits prompts by itself
            written += f" (for prompts encoded with model.prompt_segments={segments}, see docs/images.md)"
        return written

    def _size(self) -> tuple[int, int]:
        denoising = self.config.rollout.denoising
        return denoising.height or self.spec.image_size, denoising.width or self.spec.image_size

    def _caption_encoder(self, device: torch.device) -> Callable[[str], Condition]:
        """The condition (1, ...) of a caption; the latest are kept."""
        encoder = load_prompt_encoder(self.config.model, device=device)
        return lru_cache(maxsize=ENCODED_CAPTIONS)(lambda caption: encoder.encode([caption]))

    def _reward_gradient(self, policy: ImagePolicy, device: torch.device) -> ImageRewardGradient:
        config, options = self.config, self.config.algorithm.reward_gradient
        check_environment(config.reward)
        return ImageRewardGradient(
            Schedule(policy.spec, self.sampler(TicketKind.train)),
            options,
            self._caption_encoder(device) if policy.prompt_encoder is None else partial(_encoded, policy),
            load_image_codec(config.model, device=device).pixels,
            DifferentiableTotal(config.reward.terms, options.unit_gradients),
            config.run.seed,
            device,
            config.algorithm.likelihood.unconditional_gradient,
            list(trainable_parameters(policy).values()),
        )

    def _answer_encoder(self, device: torch.device) -> Encode:
        codec = load_image_codec(self.config.model, device=device)
        encoded = self._caption_encoder(device)
        latents: dict[bytes, Tensor] = {}

        def encode(trajectory: ImageTrajectory) -> tuple[Tensor, Condition]:
            assert trajectory.image is not None
            condition = encoded(trajectory.caption).of_user(trajectory.user)
            key = hashlib.blake2b(trajectory.image.tobytes()).digest()
            if (found := latents.get(key)) is None:
                found = codec.encode(torch.from_numpy(trajectory.image)).cpu()
                if len(latents) * found.nbytes < LATENT_CACHE_BYTES:
                    latents[key] = found
            return found, condition

        return encode


def _encoded(policy: ImagePolicy, caption: str) -> Condition:
    """The condition (1, ...) of a caption by the present weights of the policy's encoders, differentiable in them."""
    assert policy.prompt_encoder is not None
    return policy.prompt_encoder.encode([caption])
