"""The sessions of noxfile.py call commands that exist, with options that they have, in an order that works."""

import importlib.util
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from conftest import parsed

NOXFILE = Path(__file__).parent.parent / "noxfile.py"


class Session:
    """Notes what is run instead of running it."""

    def __init__(self, *posargs: str) -> None:
        self.posargs, self.commands, self.said = list(posargs), [], []

    def run(self, program: str, *arguments: str) -> None:
        if Path(program).stem == "ddpm-bench":
            self.commands.append(list(arguments))

    def log(self, message: str) -> None:
        self.said.append(message)


@pytest.fixture
def noxfile(monkeypatch, tmp_path):
    """noxfile.py with its folders elsewhere, without nox, which need not be where the tests run."""
    monkeypatch.setitem(
        sys.modules, "nox", SimpleNamespace(session=lambda f: f, options=SimpleNamespace(), Session=Session)
    )
    spec = importlib.util.spec_from_file_location("noxfile", NOXFILE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module._install = lambda session: None
    module.REPRODUCED = tmp_path / "reproduced"
    module.REPRODUCED.mkdir()
    return module


def test_reproduce_measures_afresh_and_then_compares(noxfile) -> None:
    session = Session("--workers", "1")
    noxfile.reproduce(session)
    assert [command[0] for command in session.commands] == ["ablate", "compare"]
    assert parsed(session.commands[0])["workers"] == 1 and parsed(session.commands[0])["preset"] == "quick"
    compared = parsed(session.commands[1])
    assert compared["a"] == parsed(session.commands[0])["results"]
    assert compared["b"] == str(NOXFILE.parent / "results" / "table2-quick")


def test_reproduce_says_what_one_seed_can_show_and_with_three_prints_the_committed_verdicts_too(noxfile) -> None:
    one, three = Session(), Session("--seeds", "0,1,2")
    noxfile.reproduce(one)
    assert "seed 0" in one.said[0] and "-- --seeds 0,1,2" in one.said[0]
    assert [command[0] for command in one.commands] == ["ablate", "compare"]
    folder = noxfile.REPRODUCED / "table2-quick"
    three.run = lambda program, *arguments: (
        Session.run(three, program, *arguments),
        folder.mkdir(parents=True, exist_ok=True),
        [(folder / f"eps-mse-fixed-seed{seed}.json").touch() for seed in range(3)],
    )
    noxfile.reproduce(three)
    assert [command[0] for command in three.commands] == ["ablate", "report", "compare"]
    ablate, report, _ = map(parsed, three.commands)
    assert ablate["seeds"] == "0,1,2" and report["results"] == str(NOXFILE.parent / "results" / "table2-quick")
    assert report["reports"] not in (ablate["reports"], NOXFILE.parent / "reports" / "table2-quick")
