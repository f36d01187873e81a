"""`nox -s tests`, `lint`, `fuzz`, `faults` and `reproduce`, on a fresh machine with Python and pip alone.

All sessions share the environment `.nox/ddpm-bench`, so that torch, by far the largest download, is installed once,
from the exact versions and hashes in `requirements.lock`.
"""

import hashlib
import secrets
import shutil
import sys
from pathlib import Path

import nox

HERE = Path(__file__).parent
LOCK = HERE / "requirements.lock"
ENVIRONMENT = HERE / ".nox" / "ddpm-bench"
COMMITTED = HERE / "results" / "table2-quick"
REPRODUCED = HERE / "reproduced"

nox.options.sessions = ["tests"]
nox.options.default_venv_backend = "none"


def _program(name: str) -> str:
    folder = "Scripts" if sys.platform == "win32" else "bin"
    return str(ENVIRONMENT / folder / name)


def _install(session: nox.Session) -> None:
    """Create the shared environment, or bring it up to date with the lock file."""
    stamp = ENVIRONMENT / "installed.sha256"
    wanted = hashlib.sha256(LOCK.read_bytes() + sys.version.encode()).hexdigest()
    if not stamp.exists() or stamp.read_text() != wanted:
        shutil.rmtree(ENVIRONMENT, ignore_errors=True)
        session.run(sys.executable, "-m", "venv", str(ENVIRONMENT))
        session.run(_program("python"), "-m", "pip", "install", "--require-hashes", "-r", str(LOCK))
        stamp.write_text(wanted)
    session.run(_program("python"), "-m", "pip", "install", "--quiet", "--no-deps", "-e", str(HERE))


@nox.session
def tests(session: nox.Session) -> None:
    """Run the tests, several files at a time; arguments after -- go to pytest."""
    _install(session)
    session.run(_program("python"), "-m", "pytest", "-n", "auto", "--dist", "loadfile", *session.posargs)


@nox.session
def lint(session: nox.Session) -> None:
    """Rules, formatting and types: ruff over everything, mypy over the package."""
    _install(session)
    session.run(_program("python"), "-m", "ruff", "check", ".")
    session.run(_program("python"), "-m", "ruff", "format", "--check", ".")
    session.run(_program("python"), "-m", "mypy")


@nox.session
def fuzz(session: nox.Session) -> None:
    """10,000 damaged and foreign files and options, other ones each time: each is read, or refused in words.

    Arguments after -- go to pytest; `-- --hypothesis-seed=N` repeats a run.
    """
    _install(session)
    arguments = session.posargs or [f"--hypothesis-seed={secrets.randbelow(2**32)}"]
    session.log(f"To repeat it: nox -s fuzz -- {' '.join(arguments)}")
    run = (_program("python"), "-m", "pytest", "-rP", "tests/test_fuzz.py", *arguments)
    session.run(*run, env={"FUZZ_INPUTS": "10000"})


@nox.session
def reproduce(session: nox.Session) -> None:
    """Measure the preset `quick` afresh, render it, and compare it with the committed records.

    One seed says whether the numbers come out; `-- --seeds 0,1,2` says whether the verdicts do, too.
    Arguments after -- go to `ddpm-bench ablate`. An interrupted run goes on; a finished one is measured again.
    """
    _install(session)
    session.log(
        "By itself this measures seed 0 of each cell and holds it against the three committed seeds: do the numbers come out? "
        "The verdicts on the paper's claims take three seeds, half an hour on two cores: nox -s reproduce -- --seeds 0,1,2"
    )
    folder = REPRODUCED / "table2-quick"
    finished = REPRODUCED / "finished"
    if finished.exists():
        shutil.rmtree(REPRODUCED)
    command = ("ablate", "--grid", "table2", "--preset", "quick", "--results", str(folder))
    session.run(_program("ddpm-bench"), *command, "--reports", str(REPRODUCED / "report"), *session.posargs)
    finished.touch()
    if len({path.stem.rpartition("-seed")[2] for path in folder.glob("*-seed*.json")}) > 1:
        session.log("Those were the verdicts of the new records; these are the committed ones'.")
        session.run(
            _program("ddpm-bench"), "report", "--results", str(COMMITTED), "--reports", str(REPRODUCED / "committed")
        )
    session.run(_program("ddpm-bench"), "compare", str(folder), str(COMMITTED))


@nox.session
def faults(session: nox.Session) -> None:
    """Kill, stop and damage a small grid in every way, and compare bit for bit what it comes to: about two hours on two cores.

    Arguments after -- say how often, as `--kills 50`. What was tried before is not tried again; see `reports/faults`.
    """
    _install(session)
    session.run(
        _program("python"),
        str(HERE / "tests" / "faults.py"),
        "--out",
        str(HERE / "reports" / "faults"),
        *session.posargs,
    )


@nox.session
def lock(session: nox.Session) -> None:
    """Renew `requirements.lock` for every supported Python and platform. It names no index host."""
    session.run(sys.executable, "-m", "pip", "install", "--quiet", "uv")
    session.run(
        sys.executable, "-m", "uv", "pip", "compile", "pyproject.toml", "--extra", "test", "--extra", "lint", "--universal", "--upgrade",
        "--python-version", "3.11", "--generate-hashes", "--no-header", "--no-emit-index-url", "-o", str(LOCK),
    )  # fmt: skip
