"""Commands on records that are there: `compare`, `merge`, `reproduce`."""

from pathlib import Path
from typing import Annotated

import typer

from ddpm_bench.cli.options import CACHE, Batch, Cache, DataRoot, Fresh, Json, Unverified, Weights, plain_text
from ddpm_bench.cli.show import print_json, print_line, print_table


def compare(
    a: Annotated[str, typer.Argument(metavar="A", help="New records: a folder or its URL, or one record's file.")],
    b: Annotated[
        str, typer.Argument(metavar="B", help="What to hold them against: a folder or its URL, or one record's file.")
    ],
    as_json: Json = False,
) -> None:
    """Set two sets of records side by side: what differs in their conditions, and their numbers with intervals.

    Where the conditions are the same and B has two or more seeds a cell, it is tested whether A repeats B. Exit code 1
    when it does not, and when the conditions or the cells differ.

    Example: `ddpm-bench compare reproduced/table2-quick results/table2-quick`
    """
    from dataclasses import asdict

    from rich.text import Text

    from ddpm_bench.cli.elsewhere import here
    from ddpm_bench.records.compare import checks_table, repeats, why_not
    from ddpm_bench.records.fields import networks_in
    from ddpm_bench.records.record import read_record, read_records
    from ddpm_bench.report.side_by_side import side_by_side
    from ddpm_bench.report.writers.terminal_tables import side_by_side_at_terminal
    from ddpm_bench.runtime.observer import say

    new, old = (read_records(path) if path.is_dir() else [read_record(path)] for path in map(here, (a, b)))
    if len({networks_in(record.hardware) for record in (*new, *old)}) > 1:
        say("Networks computed in float32 for some of these records, and in bfloat16 for others.")
    found, untested = side_by_side(new, old), why_not(new, old)
    checks = [] if untested else repeats(new, old)
    if as_json:
        print_json({**found.as_json(), "checks": [asdict(check) for check in checks], "not_tested": untested})
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


def reproduce(
    record: Annotated[Path, typer.Argument(help="The record, <cell>-seed<n>.json; those beside it give the spread.")],
    out: Annotated[
        Path | None, typer.Option(help="Folder of the new record [default: reproduced/FOLDER-RECORD].")
    ] = None,
    data: Annotated[
        str | None, typer.Option(callback=plain_text, help="Where the record's images lie here, if elsewhere.")
    ] = None,
    data_root: DataRoot = None,
    extractor: Annotated[
        str | None, typer.Option(callback=plain_text, help="Where the record's extractor lies here, if elsewhere.")
    ] = None,
    inception_weights: Weights = None,
    allow_unverified_weights: Unverified = False,
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda or mps [default: the record's].")] = None,
    batch: Batch = None,
    cache: Cache = CACHE,
    fresh: Fresh = False,
    as_json: Json = False,
) -> None:
    """Measure one record again from its own settings and say whether it came out within tolerance. Exit code 1 if not.

    The same command goes on where it was interrupted.

    Example: `ddpm-bench reproduce results/table2-quick/eps-mse-fixed-seed0.json`
    """
    from dataclasses import asdict, replace

    import torch

    from ddpm_bench.cli.setup import device_runtime, extractor_of
    from ddpm_bench.data import load_data
    from ddpm_bench.errors import UserError
    from ddpm_bench.experiment.ablate import check_results, run_jobs, set_aside
    from ddpm_bench.experiment.job import Bench
    from ddpm_bench.experiment.launchers import Inline
    from ddpm_bench.experiment.reproduce import check_same, job_of, judge, siblings, verdict_table
    from ddpm_bench.records.fields import networks_in
    from ddpm_bench.records.record import read_record
    from ddpm_bench.runtime.interrupt import Stop
    from ddpm_bench.runtime.observer import say
    from ddpm_bench.runtime.owner import owned

    expected = read_record(record)
    folder = out or Path("reproduced") / f"{record.resolve().parent.name}-{record.stem}"
    if folder.resolve() == record.resolve().parent:
        raise UserError(f"--out '{folder}' is the folder of the record itself; choose another one.")
    runtime = device_runtime(
        device or str(expected.hardware.get("device", "auto")),
        cache,
        batch,
        compiled=bool(expected.hardware.get("compiled")),
    )
    lowered = networks_in(expected.hardware)
    if runtime.device.type == expected.hardware.get("device") and lowered != runtime.arithmetic["precision"]:
        runtime = replace(runtime, precision=lowered)
    if runtime.device.type == "cpu" and "threads" in expected.hardware:  # other sums have other last digits
        torch.set_num_threads(int(expected.hardware["threads"] or 1))
    job = job_of(expected, data, extractor, data_root)
    with Stop(), owned(folder):
        features = extractor_of(job.settings, inception_weights, allow_unverified_weights, cache)
        images = load_data(job.settings.data)
        check_same(expected, images, features)
        if fresh:
            set_aside(folder, [job])
        held = check_results(folder, [job], images, features, runtime)
        outcome = run_jobs([job], Bench(folder, images, features, runtime), held, Inline())
    if outcome.failed:
        raise typer.Exit(1)
    verdict = judge(outcome.records[0], expected, siblings(record, expected))
    if as_json:
        print_json(asdict(verdict) | {"holds": verdict.holds})
    else:
        print_table(verdict_table(verdict))
    if verdict.others:
        say("Not as in the record:\n" + "\n".join(verdict.others))
    say(f"New record in '{folder}'")
    if not verdict.holds:
        raise typer.Exit(1)
