"""A script as a notebook is one: its parts are defined in `__main__`, and reach actors and scoring processes by value.

python -m tests.rl.api.notebook_like FOLDER ray|direct
"""

import sys

import numpy as np

from rl import compose, register, train

OFFSET = 1.0
"""What a part uses travels with it."""


def late(completions, **kwargs):
    """Where the first 1 stands: differs between samples of any policy."""
    return [OFFSET - max(completion.find("1"), 0) / 10 for completion in completions]


def median(rewards):
    return rewards - np.nanmedian(rewards)


def quadratic(log_ratio, advantage, options):
    return 0.5 * log_ratio**2 - log_ratio.exp() * advantage


def halved(mask):
    return 0.5 * mask, float(mask.sum())


if __name__ == "__main__":
    parts = {name: register(name, part) for name, part in [("advantage", median), ("objective", quadratic)]}
    parts["denominator"] = register("denominator", halved)
    config = compose(
        "quickstart",
        "algorithm=trace_grpo",
        f"run.folder={sys.argv[1]}",
        f"run.name={sys.argv[2]}",
        "run.updates=2",
        "run.checkpoint_every=1",
        "evaluation.every=0",
        "rollout.prompts_per_update=4",
        "rollout.prompts_per_ticket=4",
        "rollout.sampler.max_new_tokens=8",
        "cluster.threads=1",
        f"reward.terms.answer.function={register('reward', late)}",
        "reward.terms.answer.args={}",
        *(
            word
            for name, path in parts.items()
            for word in (f"algorithm.{name}=custom", f"algorithm.custom.{name}={path}")
        ),
    )
    run = train(config, ray=sys.argv[2] == "ray", verbose=False)
    print(run.metrics["learner/loss"].tolist(), run.path)
