"""When does a policy that is trained on a preference model leave what the model was trained to tell?

    OMP_NUM_THREADS=1 nice -n 10 python -m tests.benchmarks.overoptimisation FOLDER \\
        --picture docs/pictures/overoptimisation.png --figures docs/evidence/overoptimisation.json

1. The embedded policy draws pairs on 4x4 Sudoku, labelled by the verifier: a solved and an unsolved answer of a puzzle.
2. `denoiserl train-reward` makes a Bradley-Terry model of them: the proxy.
3. The policy is trained on the proxy alone; the verifier, the truth, is a measure of weight 0. Once for each KL
   coefficient. Evaluations are on puzzles that are in no pair.

**Rule.** The peak is the evaluation with the highest truth. Proxy and truth part at the first later evaluation whose
truth has a 95 % interval that lies wholly below the peak's, while the proxy is at least what it was at the peak. Where
there is none they do not part within the updates that were made. Stopping early means to take the peak.

What is in FOLDER already is used again: pairs, the model, and the runs.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter
from rich.console import Console

from cluster.weights import pack_weights
from configs.compose import compose
from models.lora import trainable_parameters
from rl.commands.pairs import draw_pairs
from rl.data.problems import open_training
from rl.data.prompts import PromptSource
from rl.data.tickets import TicketKind
from rl.drawing.plots import BLUE, GREY, ORANGE
from rl.driver.in_process import DirectGeneration, called_directly, train_in_process
from rl.modality.choice import modality_of
from rl.preference.options import PreferenceOptions
from rl.preference.training import REPORT, train_reward

BASE = ["recipe=quickstart", "cluster.threads=1", "reward.timeout_seconds=300", "run.checkpoint_every=0"]
PAIRS = ["data.train.size=2048", "data.train.seed=500000", "rollout.group_size=8"]
TERMS = {"proxy": "preference", "truth": "truth"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--updates", type=int, default=30)
    parser.add_argument("--every", type=int, default=3, help="updates between evaluations")
    parser.add_argument("--kl", type=float, nargs="+", default=[0.0, 0.3])
    parser.add_argument("--rate", type=float, default=2e-4, help="learning rate of the policy")
    parser.add_argument("--picture", type=Path)
    parser.add_argument("--figures", type=Path)
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    pairs, model = drawn(arguments.folder / "pairs.jsonl"), arguments.folder / "model"
    if not (model / REPORT).exists():
        train_reward(
            PreferenceOptions(str(pairs), "tiny/block", str(model), learning_rate=3e-4, epochs=4)  # as of the policy
        )
    curves = {each: run(arguments, model, each) for each in arguments.kl}
    held = json.loads((model / REPORT).read_text())["held_out"]
    found = {f"kl={each:g}": {**verdict(curve), "curve": curve} for each, curve in curves.items()}
    settings = {"rate": arguments.rate, "pairs": len(pairs.read_text().splitlines()), "held_out": held["accuracy"]}
    figures = json.dumps({**settings, "calibration_error": held["calibration_error"], **found}, indent=2) + "\n"
    (arguments.figures or arguments.folder / "figures.json").write_text(figures)
    for name, each in found.items():
        print(name, json.dumps({key: value for key, value in each.items() if key != "curve"}))
    if arguments.picture is not None:
        draw(curves, arguments.picture)


def drawn(file: Path) -> Path:
    """Pairs of the embedded policy, in this process."""
    if file.exists():
        return file
    config, silent = compose([*BASE, *PAIRS]).config, Console(quiet=True)
    modality = modality_of(config)
    sources = {TicketKind.sampled: PromptSource(open_training(config.data, answers=False), modality)}
    draft = file.with_suffix(".draft")
    with called_directly(config, learning=False) as processes:
        generation = DirectGeneration(config, processes, modality, sources, lambda _: nullcontext(), silent.print)
        generation.weights[0] = pack_weights(0, trainable_parameters(modality.policy(torch.device("cpu"))))
        draw_pairs(generation, config, 0, draft, 1.0, silent)
    return draft.rename(file)


def run(arguments: argparse.Namespace, model: Path, coefficient: float) -> list[dict[str, Any]]:
    """The evaluations of a policy that is trained on the proxy."""
    file = arguments.folder / f"kl_{coefficient:g}.json"
    if not file.exists():
        overrides = [
            *BASE,
            "algorithm=trace_grpo",
            f"algorithm.optimizer.learning_rate={arguments.rate}",
            "algorithm.optimizer.schedule=constant",
            f"algorithm.kl.coefficient={coefficient}",
            "reward=preference_model",
            f"reward.terms.preference.args.path={json.dumps(str(model.absolute()))}",
            "reward.terms.truth={function: reasoning_gym, weight: 0, args: {strict: true}}",
            "rollout.group_size=8",
            "rollout.prompts_per_update=16",
            "rollout.prompts_per_ticket=16",
            "data.evaluation.size=512",
            f"evaluation.every={arguments.every}",
            "evaluation.prompts_per_ticket=256",
            f"run.folder={json.dumps(str(arguments.folder))}",
            f"run.name=kl_{coefficient:g}",
            f"run.updates={arguments.updates}",
            "run.resume=false",
            "run.keep_trajectories=0",
        ]
        trained = train_in_process(compose(overrides), Console(quiet=True))
        file.write_text(json.dumps([point(row) for row in trained.evaluations], indent=2))
    return json.loads(file.read_text())


def point(row: Mapping[str, Any]) -> dict[str, Any]:
    """Update, and proxy and truth of sampled answers with their intervals."""
    found: dict[str, Any] = {"update": row["update"]}
    for name, term in TERMS.items():
        key = f"evaluation/sampled/term/{term}"
        found[name] = {"value": row[key], "low": row[f"{key}_low"], "high": row[f"{key}_high"]}
    return found


def verdict(curve: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The rule above: first, peak, last, and where proxy and truth part (None: nowhere)."""
    peak = max(range(len(curve)), key=lambda place: curve[place]["truth"]["value"])
    top = curve[peak]
    later = (
        each["update"]
        for each in curve[peak + 1 :]
        if each["truth"]["high"] < top["truth"]["low"] and each["proxy"]["value"] >= top["proxy"]["value"]
    )
    return {"first": curve[0], "peak": top, "last": curve[-1], "parts_at": next(later, None)}


def draw(curves: Mapping[float, Sequence[Mapping[str, Any]]], path: Path) -> None:
    """Proxy above, truth below, a colour for each KL coefficient."""
    figure = Figure(figsize=(7.0, 6.4), dpi=160, layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(2, 1, sharex=True)
    for colour, (coefficient, curve) in zip((ORANGE, BLUE, GREY), curves.items(), strict=False):
        updates = [each["update"] for each in curve]
        for axes, name in zip(panels, TERMS, strict=True):
            low, high = ([each[name][end] for each in curve] for end in ("low", "high"))
            axes.fill_between(updates, low, high, color=colour, alpha=0.16, linewidth=0)
            label = f"KL coefficient {coefficient:g}"
            axes.plot(
                updates, [each[name]["value"] for each in curve], color=colour, marker="o", markersize=3.5, label=label
            )
        found = verdict(curve)
        peak = found["peak"]
        panels[1].plot(peak["update"], peak["truth"]["value"], "*", color=colour, markersize=14)
        if found["parts_at"] is not None:
            for axes in panels:
                axes.axvline(found["parts_at"], color=colour, linestyle="--", linewidth=1.0)
    panels[0].set_ylabel("proxy: logit of the preference model")
    panels[1].set_ylabel("truth: puzzles solved")
    panels[1].yaxis.set_major_formatter(PercentFormatter(xmax=1.0, decimals=0))
    panels[1].set_xlabel("updates   (star: highest truth; dashed: proxy and truth part)")
    panels[1].xaxis.set_major_locator(MaxNLocator(integer=True))
    panels[0].legend(frameon=False, title="512 held-out puzzles, 95 % intervals", alignment="left")
    for axes in panels:
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="y", color="#dddddd", linewidth=0.6)
    figure.savefig(path)


if __name__ == "__main__":
    main()
