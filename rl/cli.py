"""The command line: `denoiserl COMMAND [key=value ...]`.

Commands are thin, and what they need is imported inside them: `denoiserl config` must answer without loading torch.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn, Optional

import typer

from rewards.printable import printable

if TYPE_CHECKING:
    from cluster.weights import PackedWeights
    from configs.compose import Composed

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)

Overrides = Annotated[
    Optional[list[str]],  # noqa: UP045 - Typer reads the annotation
    typer.Argument(metavar="[KEY=VALUE]...", help="Group files and options, e.g. recipe=quickstart algorithm.clip=0.3"),
]
ConfigDir = Annotated[
    Optional[Path],  # noqa: UP045
    typer.Option(help="Folder with your own group files: recipe/mine.yaml is then recipe=mine."),
]


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        print(f"denoiserl {version('denoiserl')}")
        raise typer.Exit


@app.callback()
def every_command(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and end.")
    ] = False,
) -> None:
    """Reinforcement learning for diffusion models: text and images."""


@app.command()
def train(overrides: Overrides = None, config_dir: ConfigDir = None) -> None:
    """Train a policy: reinforcement learning, or on answers in the data, for example with algorithm=sft."""
    from configs.compose import compose
    from rl.commands.algorithms import check
    from rl.compatibility.files import check_files

    composed = compose(overrides or [], config_dir)
    check(composed, config_dir)  # before the imports of the next line, which take seconds
    check_files(composed.config)

    from rl.driver.train import train as run

    run(composed)


RunFolder = Annotated[
    Optional[Path],  # noqa: UP045
    typer.Option("--run", help="Folder of a run; without it the configuration's own checkpoint is used."),
]
Update = Annotated[
    Optional[int],  # noqa: UP045
    typer.Option(help="Checkpoint after this many updates; the newest without it."),
]


Overwrite = Annotated[
    bool, typer.Option("--overwrite", help="Write over what lies there; without it a terminal is asked.")
]


@app.command("eval")
def evaluate(
    overrides: Overrides = None,
    run: RunFolder = None,
    update: Update = None,
    output: Annotated[Optional[Path], typer.Option(help="JSON file for the numbers and every outcome.")] = None,  # noqa: UP045
    overwrite: Overwrite = False,
    config_dir: ConfigDir = None,
) -> None:
    """Solve rate on held-out problems, greedy and sampled, with 95 % intervals."""
    from rl.commands.policies import run_evaluation

    run_evaluation(*_policy(overrides, run, update, config_dir), output, overwrite)


@app.command()
def sample(
    overrides: Overrides = None,
    run: RunFolder = None,
    update: Update = None,
    prompt: Annotated[Optional[str], typer.Option(help="Without it: the first held-out problems.")] = None,  # noqa: UP045
    problems: Annotated[int, typer.Option(min=1, help="Held-out problems to take.")] = 1,
    count: Annotated[int, typer.Option(min=1, help="Completions of each.")] = 1,
    greedy: Annotated[
        bool,
        typer.Option("--greedy", help="Most probable tokens; for images: no noise on the way."),
    ] = False,
    short: Annotated[bool, typer.Option("--short", help="Texts: the completions alone, without each round.")] = False,
    steps: Annotated[bool, typer.Option("--steps", help="Images: the denoising strip of each.")] = False,
    output: Annotated[Optional[Path], typer.Option(help="Images: the PNG to write; samples.png by default.")] = None,  # noqa: UP045
    config_dir: ConfigDir = None,
) -> None:
    """Draw completions, with their rewards: text with its unmasking round by round, images as a grid."""
    from rl.commands.policies import show_samples
    from rl.modality.protocol import ShowOptions

    options = ShowOptions(count, greedy, steps, output, short)
    show_samples(*_policy(overrides, run, update, config_dir, unused=("reward",)), prompt, problems, options)


@app.command()
def score(
    file: Annotated[Path, typer.Argument(help="JSONL, JSON, CSV, Parquet, or a folder of pictures.")],
    overrides: Overrides = None,
    run: RunFolder = None,
    column: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="Which holds the completions; completion, response or image without it."),
    ] = None,
    labels: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="Column of people's judgements, as numbers, that the scores are compared with."),
    ] = None,
    output: Annotated[Optional[Path], typer.Option(help="JSONL or Parquet file for rows and scores.")] = None,  # noqa: UP045
    overwrite: Overwrite = False,
    config_dir: ConfigDir = None,
) -> None:
    """Score completions that exist already, as a run would: reward=math, any reward, or that of a run."""
    from rl.commands.scoring import score_file

    unused = [f"{path}=unused" for path in ("data.train.name", "model.path", "run.name")]  # which have no default
    if run is None:
        from configs.compose import compose

        composed = compose([*unused, *(overrides or [])], config_dir)
    else:
        from rl.records.saved import EVERYTHING, run_configuration

        composed = run_configuration(run, overrides or [], [name for name in EVERYTHING if name != "reward"])
    score_file(file, composed.config, column, labels, output, overwrite)


@app.command()
def pairs(
    output: Annotated[Path, typer.Option(help="JSONL file to write; images go into a folder beside it.")],
    gap: Annotated[float, typer.Option(help="Least difference between the rewards of a pair.")],
    overwrite: Overwrite = False,
    overrides: Overrides = None,
    run: RunFolder = None,
    update: Update = None,
    config_dir: ConfigDir = None,
) -> None:
    """Preference pairs from a policy's completions of the training problems: the best and the worst by reward."""
    from rl.commands.pairs import write_pairs

    write_pairs(*_policy(overrides, run, update, config_dir), output, gap, overwrite)


@app.command("train-reward")
def train_reward(
    words: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Argument(metavar="[KEY=VALUE]...", help="pairs=, base=, output= and other options of the model."),
    ] = None,
    overwrite: Overwrite = False,
) -> None:
    """Train a reward model on preference pairs: a Bradley-Terry model of texts, or a CLIP that scores pictures."""
    from rl.commands.train_reward import run_train_reward

    run_train_reward(words or [], overwrite)


@app.command()
def export(
    run: Annotated[Path, typer.Argument(help="Folder of the run.")],
    target: Annotated[Path, typer.Argument(help="Folder to write.")],
    update: Update = None,
    adapter_only: Annotated[
        bool, typer.Option("--adapter-only", help="A PEFT adapter instead of all weights.")
    ] = False,
    half: Annotated[bool, typer.Option("--half", help="Store weights as 16-bit floats.")] = False,
    overwrite: Overwrite = False,
) -> None:
    """Write a run's policy as a checkpoint that other tools load, under the family's published names."""
    from rl.commands.policies import export_run

    export_run(run, target, update, adapter_only, half, overwrite)


@app.command()
def migrate(run: Annotated[Path, typer.Argument(help="Folder of the run.")]) -> None:
    """Write a run's checkpoints of an earlier version anew, so that it can go on; the old ones stay beside them."""
    from rl.commands.migrate import migrate_run

    for new, old in migrate_run(run):
        print(f"{new} can be read now; what was there is kept as {old}")


@app.command()
def mend(
    folder: Annotated[Path, typer.Argument(help="Folder of the checkpoint.")],
    source: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option("--from", help="Folder or hub id that has the parts of the pipeline that are missing."),
    ] = None,
) -> None:
    """Complete a checkpoint: safetensors files from fp16 variants or .bin files, and missing parts of a pipeline."""
    from models.mending import mend as complete

    for line in complete(folder, source):
        print(line)


def _policy(
    overrides: list[str] | None,
    run: Path | None,
    update: int | None,
    config_dir: Path | None,
    unused: tuple[str, ...] = (),
) -> tuple[Composed, PackedWeights | None]:
    """(configuration, weights) of a run, or of a composed configuration; weights None are the checkpoint's own."""
    if run is None:
        from configs.compose import compose

        return compose(overrides or [], config_dir), None
    from rl.records.saved import run_configuration, run_weights

    return run_configuration(run, overrides or [], unused), run_weights(run, update)


Needs = Annotated[
    Optional[list[str]],  # noqa: UP045
    typer.Option(help="What it must need, such as reference; repeatable."),
]


@app.command()
def algorithms(
    text: Annotated[str, typer.Argument(help="A name, for what its file says; or a text to look for.")] = "",
    modality: Annotated[str, typer.Option(help="text or image.")] = "",
    needs: Needs = None,
    as_json: Annotated[bool, typer.Option("--json", help="Everything that is known of them, for programs.")] = False,
    config_dir: ConfigDir = None,
) -> None:
    """List the algorithms: what each is made of, what it costs and what it needs."""
    from rl.commands.algorithms import Wanted, show_algorithms

    show_algorithms(Wanted(text, modality, tuple(needs or ())), config_dir, as_json)


@app.command("list")
def list_files(
    what: Annotated[
        str, typer.Argument(help="recipes, rewards, models, data, algorithms, rollouts, clusters or tasks.")
    ],
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
    config_dir: ConfigDir = None,
) -> None:
    """List the files of a group: what may stand behind recipe=, reward=, model= and so on."""
    from rl.commands.listing import show_list

    show_list(what, config_dir, as_json)


data_app = typer.Typer(no_args_is_help=True, help="Look at data before they are trained on.")
app.add_typer(data_app, name="data")


@data_app.command("check")
def check_data(
    overrides: Overrides = None,
    rewards: Annotated[
        bool, typer.Option("--rewards", help="Also name rows that the reward cannot score, whatever is answered.")
    ] = False,
    rows: Annotated[Optional[int], typer.Option(min=1, help="Look at so many of each source; all without it.")] = None,  # noqa: UP045
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
    config_dir: ConfigDir = None,
) -> None:
    """Name each bad row of data.train, data.also and data.evaluation, and tell lengths, repetitions and what both have.
    Exit code 1 where a row is bad."""
    from rl.commands.data_check import check_data as check

    if check(overrides or [], config_dir, rewards, rows, as_json):
        raise typer.Exit(1)


@app.command()
def gym(
    folders: Annotated[list[Path], typer.Argument(metavar="FOLDER...", help="Where the results are kept.")],
    task: Annotated[Optional[list[str]], typer.Option(help="text, image, or a file of yours; all without it.")] = None,  # noqa: UP045
    only: Annotated[Optional[list[str]], typer.Option(help="An algorithm or combination; all without it.")] = None,  # noqa: UP045
    seeds: Annotated[str, typer.Option(help="Seeds of the runs, such as 0,1,2.")] = "0,1,2",
    part: Annotated[str, typer.Option(help="2/4: the second of four processes that share the runs.")] = "1/1",
    learning_rates: Annotated[
        str, typer.Option(help="1e-4,1e-3: choose each algorithm's rate instead, on a seed of its own.")
    ] = "",
    again: Annotated[bool, typer.Option("--again", help="Do runs that are done once more.")] = False,
    report: Annotated[bool, typer.Option("--report", help="Run nothing: join the folders into one report.")] = False,
    config_dir: ConfigDir = None,
) -> None:
    """Compare all algorithms on the embedded models under one budget."""
    from rl.gym.command import run_or_report

    run_or_report(folders, task, only, seeds, part, learning_rates, again, report, config_dir)


@app.command()
def config(overrides: Overrides = None, config_dir: ConfigDir = None) -> None:
    """Print the configuration that a run would use, and the files it comes from."""
    from omegaconf import OmegaConf

    from configs.compose import compose
    from rl.commands.algorithms import check
    from rl.compatibility.run import remarks

    composed = compose(overrides or [], config_dir)
    sources = ["configs/schema.py", *composed.sources, *(overrides or [])]
    header = "".join(f"#   {' '.join(source.splitlines())}\n" for source in sources)
    _print_yaml(f"# Later wins:\n{header}{OmegaConf.to_yaml(composed.resolved)}")
    check(composed, config_dir)
    for remark in remarks(composed.config):
        print(f"note: {remark}", file=sys.stderr)


def _print_yaml(text: str) -> None:
    if not sys.stdout.isatty():
        print(text, end="")
        return
    from rich.console import Console
    from rich.syntax import Syntax

    Console().print(Syntax(text, "yaml", theme="ansi_dark", background_color="default", word_wrap=True))


def main() -> None:
    """Runs a command. An exception class of this project carries a message that names the cause and the fix: it is
    printed without a traceback; those of libraries are told by `rl.commands.foreign`. Exit code 2: the request was
    wrong and nothing was started; 1: the run failed; 128 and its number: a signal has ended it."""
    if os.getcwd() not in sys.path:  # `python -m` has it; reward functions are looked up there, here and in the workers
        sys.path.append(os.getcwd())
    # Hints of a library to its own callers, such as torchvision's absence; ours say what matters to a run.
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    if os.environ.get("COLUMNS") == "0":  # as some schedulers leave it; nothing would be printed
        del os.environ["COLUMNS"]
    from cluster.signals import code_of, watched
    from rl.storage.speaking import flush_output, unfailing_output

    with watched() as signals, unfailing_output() as output:
        try:
            app()
        except BaseException as error:  # Typer makes an exit of an interrupt
            if (number := signals.first) is not None:
                print(f"ended by {number.name}: the same command can be run again", file=sys.stderr)
                flush_output()
                os._exit(code_of(number))  # what libraries do at an exit may wait
            if isinstance(error, Exception):
                _tell(error)
            output.flush()
            if output.lost and isinstance(error, SystemExit) and not error.code and sys.argv[1:2] != ["train"]:
                print(f"error: standard output cannot be written: {output.lost}", file=sys.stderr)
                raise SystemExit(1) from None
            raise
        finally:
            flush_output()


def _tell(error: Exception) -> NoReturn:
    from rl.commands.foreign import is_ours, told

    ours = is_ours(error)
    print(f"error: {printable(str(error)) if ours else told(error)}", file=sys.stderr)
    raise SystemExit(2 if ours and isinstance(error, ValueError) else 1) from None


if __name__ == "__main__":
    main()
