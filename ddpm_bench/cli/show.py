"""Results on stdout: JSON, or a table as wide as the terminal."""

import json
import sys
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from rich.console import RenderableType


def print_table(renderable: "RenderableType") -> None:
    from rich.console import Console

    wide = None if sys.stdout.isatty() else 160
    Console(width=wide, highlight=False).print(renderable)


def print_json(value: object) -> None:
    typer.echo(json.dumps(value, indent=2, allow_nan=False))
