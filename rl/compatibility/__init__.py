"""Options that cannot work together, found before anything starts.

Each file yields one sentence for each problem: the options, why they cannot work, what to do instead. `ranges` and
`unused` read single options; `algorithm`, `custom`, `value` and `branching` the algorithm; `data`, `users` and `run`
what is around it; `text` and `image` what only one modality has, with `denoising` and `reward_gradient` for images.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from configs.errors import ConfigError
from configs.schema import Config
from models.options import Modality
from rl.compatibility.algorithm import algorithm_problems
from rl.compatibility.branching import branching_problems
from rl.compatibility.custom import custom_problems
from rl.compatibility.data import data_problems
from rl.compatibility.ranges import option_ranges
from rl.compatibility.run import run_problems
from rl.compatibility.text import text_problems
from rl.compatibility.unused import unused_options
from rl.compatibility.users import user_problems

if TYPE_CHECKING:  # they import torch, which `denoiserl config` must not wait for
    from models.images.policy import ImageSpec
    from models.text.spec import TextSpec


def check(config: Config, spec: TextSpec | ImageSpec | None) -> None:
    """Refuses a configuration that cannot train.

    Args:
        spec: the loaded model's facts; None checks what can be known without the model.

    Raises:
        ConfigError: every problem found, one a line.
    """
    if found := problems(config, spec):
        raise ConfigError("\n  ".join(["these options cannot work:", *found]))


def problems(config: Config, spec: TextSpec | ImageSpec | None) -> list[str]:
    """One sentence each, beginning with the option's name."""
    if config.model.modality is Modality.image:
        from rl.compatibility.image import image_problems

        own = image_problems(config, cast("ImageSpec | None", spec))
    else:
        own = text_problems(config, cast("TextSpec | None", spec))
    return [
        *option_ranges(config),
        *own,
        *unused_options(config),
        *algorithm_problems(config.algorithm),
        *custom_problems(config),
        *branching_problems(config),
        *data_problems(config),
        *user_problems(config),
        *run_problems(config),
    ]
