"""The command line: `denoiserl COMMAND [key=value ...]`.

Commands are thin, and what they need is imported inside them: `denoiserl config` must answer without loading torch.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Optional

import typer

from configs.errors import UserError

app = typer.Typer(
    help="Reinforcement learning for diffusion language models.",
    no_args_is_help=True,
    add_completion=False,
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


@app.command()
def train(overrides: Overrides = None, config_dir: ConfigDir = None) -> None:
    """Train a policy: reinforcement learning, or supervised with algorithm=sft."""
    from configs.compose import compose
    from rl.compatibility import check

    composed = compose(overrides or [], config_dir)
    check(composed.config, None)  # before the imports of the next line, which take seconds

    from rl.train import train as run

    run(composed)


@app.command()
def config(overrides: Overrides = None, config_dir: ConfigDir = None) -> None:
    """Print the configuration that a run would use, and the files it comes from."""
    from omegaconf import OmegaConf

    from configs.compose import compose
    from rl.compatibility import check

    composed = compose(overrides or [], config_dir)
    sources = ["configs/schema.py", *composed.sources, *(overrides or [])]
    header = "".join(f"#   {' '.join(source.splitlines())}\n" for source in sources)
    _print_yaml(f"# Later wins:\n{header}{OmegaConf.to_yaml(composed.resolved)}")
    check(composed.config, None)


def _print_yaml(text: str) -> None:
    if not sys.stdout.isatty():
        print(text, end="")
        return
    from rich.console import Console
    from rich.syntax import Syntax

    Console().print(Syntax(text, "yaml", theme="ansi_dark", background_color="default", word_wrap=True))


def main() -> None:
    """Runs a command; what the user can mend is one message on stderr and exit code 2, never a traceback."""
    try:
        app()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from None


if __name__ == "__main__":
    main()
