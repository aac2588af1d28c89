"""What an algorithm is: a cell of likelihood x ratio x objective x advantage, and its options, a section a file."""

from configs.algorithm_options.advantage import AdvantageKind, RunningOptions, TermScale
from configs.algorithm_options.custom import CustomOptions
from configs.algorithm_options.kl import KlEstimator, KlOptions, KlTarget
from configs.algorithm_options.likelihood import (
    LikelihoodKind,
    LikelihoodOptions,
    LossWeight,
    MaskLaw,
    MaskWeight,
    NoiseLaw,
    Partition,
)
from configs.algorithm_options.objective import AnchorOn, Denominator, ObjectiveKind, OldPolicyOptions, Ratio
from configs.algorithm_options.optimizer import OptimizerOptions, Schedule, ValueOptions
from configs.algorithm_options.options import AlgorithmOptions
from configs.algorithm_options.reward_gradient import Cut, RewardGradientOptions

__all__ = [
    "AdvantageKind",
    "AlgorithmOptions",
    "AnchorOn",
    "CustomOptions",
    "Cut",
    "Denominator",
    "KlEstimator",
    "KlOptions",
    "KlTarget",
    "LikelihoodKind",
    "LikelihoodOptions",
    "LossWeight",
    "MaskLaw",
    "MaskWeight",
    "NoiseLaw",
    "ObjectiveKind",
    "OldPolicyOptions",
    "OptimizerOptions",
    "Partition",
    "Ratio",
    "RewardGradientOptions",
    "RunningOptions",
    "Schedule",
    "TermScale",
    "ValueOptions",
]
