"""What `denoiserl train-reward` says and asks."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from configs.compose import options_of
from rl.commands.overwriting import ask_before_writing
from rl.preference.options import PreferenceOptions
from rl.preference.training import PICTURE, REPORT, train_reward


def run_train_reward(words: list[str], overwrite: bool) -> None:
    options = options_of(PreferenceOptions, words)
    ask_before_writing([Path(options.output)], overwrite)
    judged = train_reward(options)
    accuracy, console = judged.accuracy, Console()
    for line in (
        f"{judged.pairs} held-out pairs of {judged.prompts} prompts: accuracy {accuracy.value:.3f} "
        f"({accuracy.low:.3f} to {accuracy.high:.3f}), calibration error {judged.calibration_error:.3f}",
        f"written to {options.output}, with {REPORT} and {PICTURE}",
    ):
        console.print(line, soft_wrap=True, markup=False, highlight=False)
