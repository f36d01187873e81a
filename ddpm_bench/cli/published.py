"""What sources printed: `published`."""

from typing import Annotated

import typer

from ddpm_bench.cli.options import Json
from ddpm_bench.cli.show import print_json, print_table


def published(
    name: Annotated[str, typer.Argument(help="One of the names listed without it, or the path of a .toml file.")] = "",
    as_json: Json = False,
) -> None:
    """List the published tables with their sources, or print one.

    Example: `ddpm-bench published ddim-cifar10`
    """
    from ddpm_bench.config.shipped import load_published, published_names
    from ddpm_bench.report.writers.terminal_tables import published_at_terminal

    names = [name] if name else published_names()
    tables = {each: load_published(each) for each in names}
    if as_json:
        return print_json([{"name": each, **table.model_dump(mode="json")} for each, table in tables.items()])
    if name:
        return print_table(published_at_terminal(tables[name]))
    for each, table in tables.items():
        typer.echo(f"{each}: {table.title}\n  {table.origin}")
