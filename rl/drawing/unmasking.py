"""`denoiserl sample`: a completion as it was unmasked, round by round, in colour."""

from __future__ import annotations

import numpy as np
from rich.console import Console
from rich.text import Text
from transformers import PreTrainedTokenizerBase

from rewards.printable import printable
from rollout.trajectory import TextTrajectory

MASKED = "░"


def show_unmasking(
    trajectory: TextTrajectory, sample: int, tokenizer: PreTrainedTokenizerBase, mask_id: int, console: Console
) -> None:
    """One line block a round: new tokens stand out by how probable they were, older ones are plain, masks are grey."""
    length = int(trajectory.canvas_length[sample])
    reveal = trajectory.reveal[sample, :length]
    rounds = int(reveal.max(initial=0))
    one = trajectory.take([sample])
    states = [one.canvas_at(round_index, mask_id)[0, :length] for round_index in range(1, rounds + 2)]
    for round_index in range(1, rounds + 1):
        console.print(Text(f"round {round_index} of {rounds}", style="dim"))
        before, after = states[round_index - 1 : round_index + 1]
        console.print(_canvas(one, before == mask_id, after, tokenizer, mask_id))
    logp = trajectory.logp[sample, :length][reveal > 0]
    console.print(
        Text(
            f"{int(trajectory.stop_length[sample])} tokens in {rounds} rounds, log-probability {logp.sum():.2f}",
            style="dim",
        )
    )


def _canvas(
    one: TextTrajectory, was_masked: np.ndarray, after: np.ndarray, tokenizer: PreTrainedTokenizerBase, mask_id: int
) -> Text:
    """Of a single sample: what a round saw masked, (L,), and the canvas after it, (L,). A token that is masked again is
    shown as sure as it was the last time."""
    text = Text()
    for place, token in enumerate(after.tolist()):
        behind_stop = place >= one.stop_length[0]
        if token == mask_id:
            text.append(MASKED, style="bright_black")
        elif was_masked[place]:
            text.append(_word(tokenizer, token), style=_style(float(np.exp(one.logp[0, place]))))
        else:
            text.append(_word(tokenizer, token), style="dim" if behind_stop else "")
    return text


def _word(tokenizer: PreTrainedTokenizerBase, token: int) -> str:
    word = tokenizer.decode([token], skip_special_tokens=False)
    assert isinstance(word, str)
    return printable(word)


def _style(probability: float) -> str:
    """Green when the policy was sure, yellow when it was not, red when it took a risk."""
    if probability >= 0.9:
        return "bold black on green"
    return "bold black on yellow" if probability >= 0.5 else "bold white on red"
