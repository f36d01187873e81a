"""The command `report`, and records as every command that has made some shows them."""

import gc
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ddpm_bench.cli.options import Json, refuse
from ddpm_bench.cli.show import print_json, print_line, print_table
from ddpm_bench.errors import UserError

if TYPE_CHECKING:  # each command imports what it needs when it runs
    from ddpm_bench.config.grid import Grid
    from ddpm_bench.records.record import Record
    from ddpm_bench.report.front_page import Reported


def report(
    results: Annotated[
        str | None,
        typer.Option(help="Folder of records, or its URL; with --all the folder of such folders [default: results]."),
    ] = None,
    reports: Annotated[
        Path | None,
        typer.Option(
            help="Folder of the report [default: reports/NAME OF THE FOLDER]; with --all of all reports [reports]."
        ),
    ] = None,
    all_folders: Annotated[
        bool, typer.Option("--all", help="Render every folder of records, and a front page over all of them.")
    ] = False,
    grid: Annotated[
        str | None, typer.Option(help="The grid file, where the records' grid is not a shipped one.")
    ] = None,
    watch: Annotated[bool, typer.Option("--watch", help="Render again whenever records arrive, until Ctrl-C.")] = False,
    as_json: Json = False,
) -> None:
    """Render records: a page, Markdown, LaTeX, CSV, the terminal table and pictures.

    Example: `ddpm-bench report --results results/table2-quick`; `ddpm-bench report --all`
    """
    from ddpm_bench.cli.elsewhere import here
    from ddpm_bench.config.shipped import load_grid
    from ddpm_bench.report.readable_records import readable_records, usual_grid
    from ddpm_bench.report.watch import watch as keep_rendering
    from ddpm_bench.runtime.interrupt import Stop

    if all_folders:
        why = "is for one folder of records; --all renders every one. Leave one of them out."
        refuse({"--grid": grid, "--watch": watch}, why)
        return _render_all(Path(results or "results"), reports or Path("reports"), as_json)
    if results is None:
        raise UserError("Which records? Give --results FOLDER, or --all for every folder of records in 'results'.")
    source = here(results)
    folder = reports or Path("reports") / source.resolve().name

    def render(records: "Sequence[Record]") -> None:
        show_records(records, source, load_grid(grid or usual_grid(records)), folder, as_json)

    if not watch:
        records = readable_records(source)
        gc.freeze()  # they stay to the end, and are not looked through for garbage meanwhile
        try:
            return render(records)
        finally:
            gc.unfreeze()
    refuse({"--json": as_json}, "prints one result; --watch renders many times. Leave one of them out.")
    with Stop():
        keep_rendering(source, render)


def show_records(records: "Sequence[Record]", results: Path, grid: "Grid", reports: Path | None, as_json: bool) -> None:
    """Render the records where a report is wanted, and print them."""
    from ddpm_bench.report import render, terminal_table
    from ddpm_bench.runtime.observer import say
    from ddpm_bench.runtime.owner import RENDERING_S, owned

    if reports:
        with owned(reports, RENDERING_S):
            render(records, grid, reports, results)
    if as_json:
        print_json([record.as_json() for record in records])
    else:
        print_table(terminal_table(records, grid))
    say(f"Records in '{results}'" + (f", report in '{reports}'" if reports else ""))


def _render_all(results: Path, reports: Path, as_json: bool) -> None:
    """Every folder of records in `results` into one of the same name in `reports`, and the front page over them.

    One that cannot be rendered is said, on the front page, too; the exit code is then 1.
    """
    from ddpm_bench.report.front_page import folders_of_records, write_front_page
    from ddpm_bench.runtime.observer import say
    from ddpm_bench.runtime.owner import RENDERING_S, owned

    folders = folders_of_records(results)
    if not folders:
        raise UserError(f"No folder in '{results}' holds records. Name the folder above such folders with --results.")
    found, left_out = [], []
    for folder in folders:
        try:
            found.append(_render_one(folder, reports / folder.name))
            say(f"Records in '{folder}', report in '{reports / folder.name}'")
        except UserError as error:
            left_out.append(f"{folder.name}: {error}")
            say(f"Left out: {left_out[-1]}")
    if not found:
        raise UserError(f"No folder of records in '{results}' can be rendered.")
    with owned(reports, RENDERING_S):
        page, _ = write_front_page(found, left_out, reports)
    if as_json:
        print_json([one.as_json() for one in found])
    else:
        for one in found:
            outcomes = [claim.outcome for claim in one.claims]
            counts = (f"{outcomes.count(what)} {what}" for what in ("supported", "contradicted", "undecided"))
            print_line(f"{one.name}: claims {', '.join(counts)}")
    say(f"Front page in '{page.with_suffix('.html')}' and '{page.name}'")
    if left_out:
        raise typer.Exit(1)


def _render_one(folder: Path, out: Path) -> "Reported":
    from ddpm_bench.config.shipped import load_grid
    from ddpm_bench.report import render
    from ddpm_bench.report.front_page import reported
    from ddpm_bench.report.readable_records import readable_records, usual_grid
    from ddpm_bench.runtime.owner import RENDERING_S, owned

    records = readable_records(folder)
    one = reported(folder.name, records, load_grid(usual_grid(records)))
    with owned(out, RENDERING_S):
        render(records, one.summary.grid, out, folder)
    return one
