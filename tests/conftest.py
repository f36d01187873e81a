"""What several test files share: the command line called in this process, and one small real run."""

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
import typer

from ddpm_bench import cli
from ddpm_bench.runtime.terminal import at_the_terminal

torch.set_num_threads(1)  # small tensors: a second thread costs more than it brings, above all on a busy machine

SMALL = ["--set", "training.steps=40", "--set", "sampling.samples=32", "--set", "scoring.bound_images=4"]
"""Overrides of the preset `smoke` for tests that need a run but not its numbers."""


@dataclass(frozen=True)
class Called:
    """What a command did."""

    code: int
    out: str
    err: str


@pytest.fixture
def call(monkeypatch, capsys):
    """Run `ddpm-bench ARGUMENTS` as its entry point does."""

    def run(*arguments) -> Called:
        monkeypatch.setattr(sys, "argv", ["ddpm-bench", *map(str, arguments)])
        capsys.readouterr()
        try:
            cli.main()
            code = 0
        except SystemExit as stop:
            code = stop.code or 0
        said = capsys.readouterr()
        return Called(code, said.out, said.err)

    return run


@pytest.fixture
def messages() -> Iterator[None]:
    """What is said stands on stderr, as at the command line."""
    with at_the_terminal():
        yield


def parsed(arguments: list[str]) -> dict:
    """The parameters that the command line makes of them; click's UsageError for one that it does not know."""
    command, rest = command_of(arguments)
    return command.make_context(command.name, rest).params


def command_of(arguments: list[str]):
    """The command that the first words name, as click has it, and the words after them."""
    command = typer.main.get_command(cli.app)
    while hasattr(command, "commands"):
        command, arguments = command.commands[arguments[0]], arguments[1:]
    return command, list(arguments)


@dataclass(frozen=True)
class Run:
    """A finished `ablate --no-report`: its folder, and the arguments that made it."""

    results: Path
    arguments: list[str]


@pytest.fixture(scope="session")
def small_run(tmp_path_factory) -> Run:
    """Two cells of Table 2 at the size of SMALL, through the real command."""
    folder = tmp_path_factory.mktemp("run")
    arguments = [
        "ablate", "--preset", "smoke", "--cells", "eps-mse-fixed,mu-L-learned", *SMALL, "--device", "cpu", "--workers", "1",
        "--set", "scoring.precision_recall=true",
        "--results", str(folder / "results"), "--cache", str(folder / "cache"), "--no-report",
    ]  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["ddpm-bench", *arguments])
        try:
            cli.main()
        except SystemExit as stop:
            assert not stop.code
    return Run(folder / "results", arguments)
