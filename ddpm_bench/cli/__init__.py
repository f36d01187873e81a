"""The command line: parse, call, render. No maths, no input or output of its own.

Heavy imports are inside the commands, so that `ddpm-bench --help` answers at once. Exit codes: 0 done (a diverged cell
is a result), 1 a cell failed or a comparison did not hold or the disk or the memory is full or a rank is lost, 2 a
mistake in what was given, 130 interrupted.

    grids.py        ablate, train, grids
    report.py       report
    records.py      compare, merge, reproduce
    sample.py       sample
    evaluate.py     evaluate
    likelihood.py   nll, selftest
    imports.py      import
    mix.py          mix
    cascade.py      cascade
    published.py    published
    speed.py        speed, precision
    gpu.py          gpu
    noise.py        gradient-noise
    extractors.py   extractor train
    autoencoders.py autoencoder train, autoencoder add
    classifiers.py  classifier train
    show.py         results on stdout
"""

import atexit
import os
import signal
import sys
from contextlib import AbstractContextManager, nullcontext, suppress
from typing import Annotated, NoReturn

import typer

from ddpm_bench import __version__
from ddpm_bench.cli import (
    autoencoders,
    cascade,
    classifiers,
    evaluate,
    extractors,
    gpu,
    grids,
    imports,
    likelihood,
    mix,
    noise,
    published,
    records,
    report,
    sample,
    speed,
)
from ddpm_bench.cli.show import print_line
from ddpm_bench.errors import Interrupted, RankLost, UserError

app = typer.Typer(
    help="Table 2 of 'Denoising Diffusion Probabilistic Models', measured. Start with: ddpm-bench ablate --grid table2",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"ddpm-bench {__version__}")
        raise typer.Exit


@app.callback()
def _main(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


for command in (
    grids.ablate,
    grids.train,
    sample.sample,
    evaluate.evaluate,
    likelihood.nll,
    likelihood.selftest,
    mix.mix,
    cascade.cascade,
    report.report,
    records.compare,
    records.merge,
    records.reproduce,
    grids.grids,
    published.published,
    speed.speed,
    speed.precision,
    gpu.gpu,
    noise.gradient_noise,
):
    app.command()(command)
app.command("import")(imports.import_)
app.add_typer(extractors.app, name="extractor")
app.add_typer(autoencoders.app, name="autoencoder")
app.add_typer(classifiers.app, name="classifier")


def _nothing_left_to_stop() -> None:
    """All is written, and Python takes torch apart, which lasts: a signal now would only change the exit code."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


def _one_of_several() -> bool:
    """Has torchrun started several of this process?"""
    return "LOCAL_RANK" in os.environ and os.environ.get("WORLD_SIZE", "1") != "1"


def _with_its_ranks() -> AbstractContextManager[None]:
    """Where there are several of this process, rank 0 runs the command; the others take part, and come no further."""
    if not _one_of_several():
        return nullcontext()
    from ddpm_bench.runtime.ranks import joined

    return joined()


def _end_at_once(code: int) -> NoReturn:
    """All is written. Python would take torch apart first, in which a process that was done has been seen to abort."""
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError):
            stream.flush()
    os._exit(code)


def main() -> None:
    """The entry point: a command, and its exit code."""
    atexit.register(_nothing_left_to_stop)
    try:
        _run()
    except SystemExit as ended:
        if _one_of_several() and isinstance(ended.code, int):
            _end_at_once(ended.code)
        raise


def _run() -> None:
    """Turns a user's mistake, a full disk or memory and an interruption into a message and an exit code."""
    from ddpm_bench.files import FULL, NO_PLACE
    from ddpm_bench.runtime.terminal import at_the_terminal

    try:
        with _with_its_ranks(), at_the_terminal():
            app()
    except UserError as error:
        print_line(f"ddpm-bench: {error}", err=True)
        sys.exit(2)
    except ValueError as error:
        from pydantic import ValidationError

        from ddpm_bench.config.values import first_fault

        if not isinstance(error, ValidationError):
            raise
        print_line(f"ddpm-bench: What was given cannot be ({error.title}): {first_fault(error)}.", err=True)
        sys.exit(2)
    except MemoryError as error:
        print_line(f"ddpm-bench: {error or 'out of memory'}", err=True)
        sys.exit(1)
    except RankLost as error:
        print_line(f"ddpm-bench: {error}", err=True)
        sys.exit(1)
    except Interrupted:
        typer.echo("ddpm-bench: interrupted; the same command goes on from here.", err=True)
        sys.exit(130)
    except OSError as error:
        if error.errno in NO_PLACE and error.filename:
            print_line(f"ddpm-bench: '{error.filename}': {error.strerror}. Choose another place.", err=True)
            sys.exit(2)
        if error.errno not in FULL:
            raise
        typer.echo(
            f"ddpm-bench: cannot write: {error.strerror}. Make room; the same command goes on from here.", err=True
        )
        sys.exit(1)
