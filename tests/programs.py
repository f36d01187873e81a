"""What some tests need and an installation may lack: a browser, a TeX, the extras `colour`, `ray` and `slurm`.

Where one is missing the tests that need it are skipped, with the reason; except for those that the environment variable
DDPM_BENCH_REQUIRE names (`browser,tex,colour,ray,slurm`): then they fail.
"""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any, NoReturn

import pytest

from ddpm_bench.metrics import efficientnet

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


@contextmanager
def browser() -> Iterator[Any]:
    """A headless Chromium, or a browser made of it, as playwright drives it."""
    program = next(filter(None, map(shutil.which, BROWSERS)), None) or _missing("browser", " or ".join(BROWSERS))
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        _missing("browser", "the Python package playwright")
    with sync_playwright() as playwright:
        # Root has no sandbox, as in a container; the page is the report and nothing else.
        running = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield running
        running.close()


def pdflatex() -> str:
    """The path of pdflatex."""
    return shutil.which("pdflatex") or _missing("tex", "pdflatex")


def colour() -> None:
    """The extractor `efficientnet-lite0` is there."""
    if not efficientnet.installed():
        _missing("colour", f"the extra `colour`: {efficientnet.INSTALL}")


def ray() -> None:
    """Ray is there."""
    if find_spec("ray") is None:
        _missing("ray", "the extra `ray`: pip install 'ddpm-bench[ray]'")


def submitit() -> None:
    """submitit is there; Slurm need not be."""
    if find_spec("submitit") is None:
        _missing("slurm", "the extra `slurm`: pip install 'ddpm-bench[slurm]'")


def _missing(kind: str, what: str) -> NoReturn:
    say = pytest.fail if kind in os.environ.get("DDPM_BENCH_REQUIRE", "").split(",") else pytest.skip
    say(f"needs {what}")
