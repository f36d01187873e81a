"""Results on stdout: JSON, or a table as wide as the terminal."""

import json
import sys

import typer


def print_table(renderable) -> None:
    from rich.console import Console

    wide = None if sys.stdout.isatty() else 160
    Console(width=wide, highlight=False).print(renderable)


def print_json(value) -> None:
    typer.echo(json.dumps(value, indent=2, allow_nan=False))
