"""Options of the rollout. `SamplerOptions` is the sampler contract: it is recorded in every trajectory."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Optional


class Order(Enum):
    """What ranks the masked positions of a block; higher ranks are revealed first."""

    max_prob = "max_prob"
    """Highest probability of the processed distribution."""
    entropy = "entropy"
    """Lowest entropy of the processed distribution."""
    margin = "margin"
    """Largest gap between the two most probable tokens."""
    random = "random"
    """In an order drawn for each sample."""
    sequential = "sequential"
    """Left to right."""
    drawn_prob = "drawn_prob"
    """Processed probability of the token just drawn (SDAR, JetEngine). Ranking depends on the draw."""
    drawn_raw_prob = "drawn_raw_prob"
    """Untempered probability of the token just drawn (LLaDA). Ranking depends on the draw."""

    @property
    def depends_on_draw(self) -> bool:
        return self in (Order.drawn_prob, Order.drawn_raw_prob)


class Count(Enum):
    """How many of the ranked positions a round reveals; always at least one, or `least_per_round`."""

    quota = "quota"
    """An even share of the block over `rounds_per_block` rounds (LLaDA)."""
    threshold = "threshold"
    """Every position whose score reaches `threshold`."""
    factor = "factor"
    """The largest n with (n + 1) (1 - score of the n-th) < `factor` (Fast-dLLM)."""
    entropy_bound = "entropy_bound"
    """The largest prefix whose summed entropy without its largest member stays within `entropy_bound` (EB-sampler)."""
    entropy_sum = "entropy_sum"
    """The largest prefix whose summed entropy, all of it, stays below `entropy_bound` (JetEngine: 0.35)."""


class Remask(Enum):
    """Whether a token, once there, may become MASK again."""

    none = "none"
    """Never: each position is revealed once."""
    running_confidence = "running_confidence"
    """Every round fills all masked positions and masks the least certain of all again, as many as later rounds of the
    block will reveal (RCR, arXiv 2508.13148). Certainty is the score of `order` when a position was last predicted."""


class Cache(Enum):
    none = "none"
    """Recompute the whole context each round."""
    block = "block"
    """Keep keys and values of finished blocks: exact for block-causal models, impossible for others."""


@dataclass
class SamplerOptions:
    order: Order = Order.max_prob
    """Which masked positions are revealed first."""
    count: Count = Count.quota
    """How many positions a round reveals."""
    rounds_per_block: Optional[int] = None  # noqa: UP045
    """Rounds of the quota rule; null is one token a round. Unit: rounds."""
    threshold: float = 0.9
    """Least score of a position that is revealed (count=threshold). Unit: the score of `order`."""
    factor: float = 1.0
    """Bound of the factor rule (count=factor). Unit: 1."""
    entropy_bound: float = 0.1
    """Bound of the summed entropy (count=entropy_bound and entropy_sum). Unit: nats."""
    least_per_round: Optional[int] = field(default=None, metadata={"contract": "if set"})  # noqa: UP045
    """Positions that a round reveals at least, where `count` would reveal fewer (JetEngine: a block over its rounds);
    null is one. Unit: positions."""
    temperature: float = 1.0
    """Divides the logits; 0 is greedy. Unit: 1."""
    top_k: int = 0
    """Only so many of the most probable tokens can be drawn; 0 keeps every token. Unit: tokens."""
    top_p: float = 1.0
    """Only the most probable tokens that together have this probability can be drawn; 1 keeps every token. Unit: 1."""
    max_new_tokens: int = 256
    """Length of the canvas: the longest completion. Unit: tokens."""
    block_length: Optional[int] = None  # noqa: UP045
    """Positions that are denoised together, before the next ones; null is the model's own block, or the whole canvas
    for bidirectional models. Unit: tokens."""
    cache: Optional[Cache] = None  # noqa: UP045
    """What is kept between rounds; null is `block` where it is exact, else `none`."""
    remask: Remask = Remask.none
    """Whether a token may become MASK again."""

    def greedy(self) -> SamplerOptions:
        return replace(self, temperature=0.0)


class KernelKind(Enum):
    """How much noise a denoising step of an image model adds, and how its mean makes room for it."""

    ode = "ode"
    """No noise: DDIM at eta 0 (arXiv 2010.02502), the Euler step of a flow."""
    ddim = "ddim"
    """DDIM with eta (arXiv 2010.02502): eta 1 is ancestral sampling as in DDPO."""
    flow_sde = "flow_sde"
    """Euler step of an SDE whose diffusion grows with the noise level (Flow-GRPO, arXiv 2505.05470)."""
    dance_sde = "dance_sde"
    """Euler step of an SDE with constant diffusion (DanceGRPO, arXiv 2505.07818)."""
    cps = "cps"
    """Coefficients-preserving sampling (Flow-CPS, arXiv 2509.05952): no left-over noise, but the samples do not become
    those of the data however many steps are taken."""
    precise = "precise"
    """Exact for a diffusion whose clean image is the estimate (Precise, arXiv 2605.23522). Eta may exceed 1: the
    authors use 1.5, and sqrt(2) is `ddim` at 1."""
    custom = "custom"
    """In the form of DDIM, with as much noise as a function of yours says (`custom_kernel`)."""


class Reduction(Enum):
    """How the log-probabilities of a latent's elements make that of a step."""

    sum = "sum"
    """The log-density, in nats."""
    mean = "mean"
    """Per element, as the published image trainers do: a clip width then depends on the latent's size."""


class LatentPrecision(Enum):
    """Type that latents are rounded to between the steps, before they are scored."""

    fp32 = "fp32"
    """32 bits."""
    bf16 = "bf16"
    """16 bits with the range of fp32."""
    fp16 = "fp16"
    """16 bits with a finer grid and a smaller range than bf16."""


class WindowKind(Enum):
    """Which steps draw noise and are trained; the others follow the ODE. Drawn per ticket: groups never mix windows."""

    all = "all"
    """Every step that can draw noise."""
    fixed = "fixed"
    """`size` steps from `start`."""
    random = "random"
    """`size` steps at a place drawn between `start` and `stop` (Flow-GRPO-Fast)."""
    sliding = "sliding"
    """`size` steps that move one step towards the image every `every` updates, and from the end back to `start`
    (MixGRPO, arXiv 2507.21802)."""


@dataclass
class UntrainedOptions:
    """A run of steps that draw noise and are not trained; it moves by one step towards the noise every `every` updates,
    from `start` to `final_start` (BranchGRPO's depth pruning)."""

    size: int = 4
    """Length of the run of steps. Unit: steps."""
    start: int = 14
    """First of these steps in the first update. Unit: steps."""
    final_start: int = 8
    """First of them in the end. Unit: steps."""
    every: int = 30
    """Updates between two moves. Unit: updates."""


@dataclass
class WindowOptions:
    kind: WindowKind = WindowKind.all
    """Which steps draw noise."""
    size: int = 4
    """Length of the window; `all` ignores this and the three below. Unit: steps."""
    start: int = 0
    """First step that a window may hold; step 0 is the noisiest. Unit: steps."""
    stop: Optional[int] = None  # noqa: UP045
    """End, not included, of the steps a window may hold; null is after the last step that can draw noise. Unit:
    steps."""
    every: int = 25
    """Updates between two moves of a sliding window. Unit: updates."""
    trained_fraction: float = 1.0
    """Share of the window's steps that are trained, drawn per ticket (DanceGRPO: 0.6). A run with likelihood.kind=elbo
    replays none and sets it to 0, which records none. Unit: share of the window."""
    untrained: Optional[UntrainedOptions] = None  # noqa: UP045
    """Steps of the window that are not trained; null trains every step that draws noise (but for trained_fraction)."""

    @property
    def trains_all(self) -> bool:
        """Every step that draws noise is trained."""
        return self.trained_fraction == 1 and self.untrained is None


@dataclass
class DenoisingOptions:
    """How an image policy denoises: the sampler contract of image trajectories."""

    steps: int = 10
    """Denoising steps of a sample. Unit: steps."""
    kernel: KernelKind = KernelKind.precise
    """How a step draws noise."""
    eta: float = 1.5
    """Amount of noise in the kernel's own unit: ddim and cps 0 to 1, flow_sde 0.7, dance_sde 0.3, precise 1.5. Unit:
    the kernel's own."""
    custom_kernel: Optional[str] = field(default=None, metadata={"contract": "if set"})  # noqa: UP045
    """Dotted path of the function of kernel=custom: (eta, level, following) -> standard deviation of the noise."""
    guidance: float = 1.0
    """Scale of classifier-free guidance, 1 is without; for FLUX.1-dev the scale that its network takes as an input.
    Unit: 1."""
    guidance_from: int = 0
    """First step with classifier-free guidance. Unit: steps."""
    guidance_until: Optional[int] = None  # noqa: UP045
    """End, not included, of the steps with it; null is all. Unit: steps."""
    height: Optional[int] = None  # noqa: UP045
    """Height of the images; null is what the model was made for. Unit: pixels."""
    width: Optional[int] = None  # noqa: UP045
    """Width of the images; null is what the model was made for. Unit: pixels."""
    window: WindowOptions = field(default_factory=WindowOptions)
    """Which steps draw noise, and which of those are trained."""
    even_sigmas: Optional[bool] = field(default=None, metadata={"contract": "if set"})  # noqa: UP045
    """Flow models: walk the sigmas 1, ..., 1 / steps, shifted as the scheduler shifts them, in place of the scheduler's
    own (DanceGRPO on every model); null is what the pipeline does, which is true for FLUX only. Others have no such
    choice."""
    same_noise: bool = False
    """All samples of a prompt start from the same noise (DanceGRPO)."""
    storage: LatentPrecision = LatentPrecision.fp32
    """Type that latents are rounded to between the steps."""
    log_prob: Reduction = Reduction.sum
    """How the log-probabilities of a latent's elements make that of a step."""
    samples_per_forward: int = 64
    """Samples that go through the network together in a rollout. Unit: samples."""
    evaluation_steps: Optional[int] = field(default=None, metadata={"resume": "other evaluations"})  # noqa: UP045
    """Steps of a greedy evaluation; null is the same as in training. Unit: steps."""

    def greedy(self) -> DenoisingOptions:
        """No noise on the way: the ODE. Images of one prompt differ by their first noise, or all would be the same."""
        steps = self.evaluation_steps or self.steps
        return replace(
            self,
            kernel=KernelKind.ode,
            custom_kernel=None,
            steps=steps,
            same_noise=False,
            window=WindowOptions(),
            evaluation_steps=None,
        )


@dataclass
class BranchingOptions:
    """The samples of a prompt are the leaves of a tree: they share the steps before a fork (`rollout.branching`)."""

    forks: list[int] = field(default_factory=lambda: [0])
    """Denoising steps, or rounds of a text, from 0: the first one that siblings do not share. Samples of an image whose
    first fork is step 0 have also a first noise of their own, unless denoising.same_noise says otherwise. Unit:
    steps."""
    factors: list[int] = field(default_factory=lambda: [8])
    """Children of a node at each fork; their product is the group size. Unit: branches."""
    final_forks: Optional[list[int]] = None  # noqa: UP045
    """Forks after `moving_updates`, to which they move evenly (B2-DiffuRL's backward progressive training); null is
    where they are. Unit: steps."""
    moving_updates: int = 100
    """Updates over which the forks move (final_forks). Unit: updates."""


class Finish(Enum):
    """What a candidate for the next latent is judged by."""

    estimate = "estimate"
    """The clean image as the network estimates it there: one forward (SPO)."""
    ode = "ode"
    """The image that the steps of the ODE lead to (TempFlow-GRPO)."""


@dataclass
class StepCandidateOptions:
    """Images: `group_size` candidates for each next latent, from one state; every step is a group of its own
    (`rollout/images/step_candidates.py`)."""

    first_step: int = 0
    """First denoising step with candidates, from 0; the steps before it follow one chain. Unit: steps."""
    finish: Finish = Finish.estimate
    """What a candidate is judged by."""


@dataclass
class RolloutOptions:
    group_size: int = 8
    """Samples of one prompt. Unit: samples."""
    prompts_per_update: int = 32
    """Prompts that one update learns from; a multiple of `prompts_per_ticket`. Unit: prompts."""
    prompts_per_ticket: int = 16
    """Prompts that one worker generates together: the unit of scheduling. Unit: prompts."""
    branching: Optional[BranchingOptions] = None  # noqa: UP045
    """Samples of a prompt that share the first part of their chain; null: they share nothing but their prompt."""
    step_candidates: Optional[StepCandidateOptions] = None  # noqa: UP045
    """Candidates for every next latent; null: samples are whole chains."""
    refills: int = 0
    """Times that groups without a signal are replaced by those of further prompts (DAPO's dynamic sampling). Unit:
    attempts."""
    max_staleness: int = 0
    """Updates that the policy may be ahead of the one that generates: 0 is synchronous, 1 one step off, k bounded
    asynchrony. Unit: updates."""
    timeout_seconds: float = field(default=600.0, metadata={"resume": "may change"})
    """Deadline of one ticket. Unit: seconds."""
    sampler: SamplerOptions = field(default_factory=SamplerOptions)
    """How a text is unmasked; `denoising` is for images."""
    denoising: DenoisingOptions = field(default_factory=DenoisingOptions)
    """Image models; `sampler` is for text."""
