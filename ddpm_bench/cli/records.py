"""Commands on records that are there: `compare`, `merge`."""

from pathlib import Path
from typing import Annotated

import typer

from ddpm_bench.cli.options import Json
from ddpm_bench.cli.show import print_json, print_line, print_table


def compare(
    a: Annotated[Path, typer.Argument(metavar="A", help="New records: a folder, or one record's file.")],
    b: Annotated[Path, typer.Argument(metavar="B", help="What to hold them against: a folder, or one record's file.")],
    as_json: Json = False,
) -> None:
    """Set two sets of records side by side: what differs in their conditions, and their numbers with intervals.

    Where the conditions are the same and B has two or more seeds a cell, it is tested whether A repeats B. Exit code 1
    when it does not, and when the conditions or the cells differ.

    Example: `ddpm-bench compare reproduced/table2-quick results/table2-quick`
    """
    from dataclasses import asdict

    from rich.text import Text

    from ddpm_bench.records.compare import checks_table, repeats, why_not
    from ddpm_bench.records.record import read_record, read_records
    from ddpm_bench.report.side_by_side import side_by_side
    from ddpm_bench.report.writers.terminal_tables import side_by_side_at_terminal

    new, old = (read_records(path) if path.is_dir() else [read_record(path)] for path in (a, b))
    found, untested = side_by_side(new, old), why_not(new, old)
    checks = [] if untested else repeats(new, old)
    if as_json:
        print_json({**asdict(found), "checks": [asdict(check) for check in checks], "not_tested": untested})
    else:
        print_table(side_by_side_at_terminal(found))
        print_table(Text(f"\nWhether A repeats B was not tested. {untested}") if untested else checks_table(checks))
    if not (found.alike and all(check.passed for check in checks)):
        raise typer.Exit(1)


def merge(
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Folder to put the records into; it may hold some.")],
    sources: Annotated[list[Path], typer.Argument(metavar="A B ...", help="Folders of records.")],
) -> None:
    """Join records and their pictures from several machines. Nothing is overwritten; records in conflict are refused.

    Example: `ddpm-bench merge results/table2-all machine1/table2-quick machine2/table2-quick`
    """
    from ddpm_bench.records.merge import merge as join
    from ddpm_bench.runtime.observer import say
    from ddpm_bench.runtime.owner import owned

    with owned(out):
        paths = join(out, sources)
    for path in paths:
        print_line(str(path))
    say(f"{len(paths)} records merged into '{out}'")
