"""Results on stdout: JSON, a line, or a table as wide as the terminal. Nothing in them is obeyed by the terminal."""

import json
import sys
from typing import TYPE_CHECKING

import typer

from ddpm_bench.text import visible

if TYPE_CHECKING:
    from rich.console import RenderableType


def print_table(renderable: "RenderableType") -> None:
    from ddpm_bench.runtime.terminal import PlainConsole

    wide = None if sys.stdout.isatty() else 160
    PlainConsole(width=wide, highlight=False).print(renderable)


def print_line(text: str, err: bool = False) -> None:
    typer.echo(visible(text), err=err)


def print_json(value: object) -> None:
    typer.echo(json.dumps(value, indent=2, allow_nan=False))
