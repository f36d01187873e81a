"""What the first page promises: it is short, its numbers are the records', its commands exist, and CI types its test command."""

import math
import re
import shlex
import tomllib
from pathlib import Path

import pytest
from conftest import parsed

import ddpm_bench
from ddpm_bench.config.metrics import BOUNDS, DISTANCE, SCORE
from ddpm_bench.config.shipped import load_grid
from ddpm_bench.records.record import read_records
from ddpm_bench.report.claims import examine_claims
from ddpm_bench.report.summary import Estimate, summaries

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
WORDS = 900
NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven")


@pytest.fixture(scope="module")
def study():
    """The committed records that the page's table and verdicts are of."""
    return summaries(read_records(ROOT / "results" / "table2-study"), load_grid("table2"))


def test_the_first_page_is_short() -> None:
    assert len(README.split()) <= WORDS  # as `wc -w` counts: tables, commands and all


def test_the_table_holds_the_numbers_of_the_committed_records(study) -> None:
    lines = re.findall(r"^\| (?:mu-tilde|epsilon): .*$", README, re.MULTILINE)
    assert len(lines) == len(study[0].rows)
    for line, row in zip(lines, study[0].rows, strict=True):
        fields = [field.strip(" *") for field in line.split("|")[2:-1]]
        assert fields[:3] == [_with_error(row.estimates[key]) for key in (SCORE, DISTANCE, BOUNDS["test"])], line
        published = [row.cell.published.of(key) for key in (SCORE, DISTANCE, BOUNDS["test"])]
        assert [_number(field) for field in fields[3:]] == published, line


def _with_error(one: Estimate) -> str:
    """With as many digits as two of the deviation's need."""
    digits = 1 - math.floor(math.log10(one.deviation))
    return f"{one.mean:.{digits}f} ± {one.deviation:.{digits}f}"


def _number(field: str) -> float | None:
    return None if field in ("", "–") else float(field.removeprefix("≤ "))


def test_the_verdicts_are_those_of_the_committed_records(study) -> None:
    claims = examine_claims(study)
    supported, contradicted, undecided = (
        [one for one in claims if one.outcome == outcome] for outcome in ("supported", "contradicted", "undecided")
    )
    (beaten,) = supported
    assert f"Of the paper's {NUMBERS[len(claims)]} claims of order, these numbers support one" in README
    assert (
        f"(p = {beaten.adjusted:.2g};" in README and "mu" in beaten.deciding.second and "mse" in beaten.deciding.first
    )
    assert (
        f"{NUMBERS[len(contradicted)].title()} are contradicted: at this learning rate mu-tilde does better with MSE than with L"
        in README
    )
    assert [(one.deciding.first, one.deciding.second) for one in contradicted] == [
        ("mu-L-fixed", "mu-mse-fixed"), ("eps-L-fixed", "mu-L-fixed"),
    ]  # fmt: skip
    assert all(one.holds for one in undecided)
    assert f"{NUMBERS[len(undecided)].title()} stay undecided, all pointing as claimed" in README


def test_the_toys_output_is_in_the_grids_order_and_is_said_to_mean_nothing() -> None:
    cells = re.findall(r"^(\S+)-seed0: FD \(embedded\) .* bits/dim \((\d) of 6\)$", README, re.MULTILINE)
    assert sorted(name for name, _ in cells) == sorted(cell.name for cell in load_grid("table2").cells)
    assert "order of these numbers means nothing" in README


def test_ci_types_the_readmes_test_command() -> None:
    (command,) = re.findall(r"^(python3 -m venv .*nox -s tests)$", README, re.MULTILINE)
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert command in script.replace(" --quiet", "")


def test_every_session_that_the_readme_names_is_there() -> None:
    sessions = set(re.findall(r"@nox\.session\ndef (\w+)", (ROOT / "noxfile.py").read_text(encoding="utf-8")))
    named = re.findall(r"nox -s (\w+)", README)
    assert "reproduce" in named and set(named) <= sessions
    (arguments,) = re.findall(r"nox -s reproduce -- ([^`]+)`", README)
    parsed(["ablate", *shlex.split(arguments)])


def test_every_picture_is_there_and_described() -> None:
    pictures = re.findall(r"!\[([^\]]*)\]\(([^)]+)\)", README)
    assert pictures
    for described, path in pictures:
        assert len(described) > 40 and (ROOT / path).stat().st_size > 1000


def test_links_are_relative_only_as_long_as_the_project_has_no_address() -> None:
    """A package page shows no relative picture and follows no relative link."""
    assert not {"Homepage", "Repository", "Source"} & set(PROJECT.get("urls", {})), "make README.md's links absolute"


def test_the_citation_is_that_of_the_citation_file_and_of_this_version() -> None:
    (block,) = re.findall(r"```bibtex\n(.*?)```", README, re.DOTALL)
    card = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    (title,) = re.findall(r'^title: "(.*)"$', card, re.MULTILINE)
    (author,) = re.findall(r'^  - name: "(.*)"$', card, re.MULTILINE)
    (year,) = re.findall(r"^date-released: (\d{4})", card, re.MULTILINE)
    found = dict(re.findall(r"(\w+) += \{+([^{}]*)\}+", block))
    assert found == {"title": title, "author": author, "version": ddpm_bench.__version__, "year": year}
    assert f"\nversion: {ddpm_bench.__version__}\n" in card


def test_the_versions_of_python_are_those_of_the_package() -> None:
    low, high = re.search(r"Python (3\.\d+) to (3\.\d+)", README).groups()
    above = f"3.{int(high.split('.')[1]) + 1}"
    assert PROJECT["requires-python"] == f">={low},<{above}"


def test_the_lock_pins_hashes_and_names_no_host() -> None:
    lock = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    assert "://" not in lock and "--index" not in lock and "--extra" not in lock
    pinned = re.findall(r"^([a-z0-9-]+)==(\S+)", lock, re.MULTILINE)
    blocks = re.split(r"^(?=[a-z0-9-]+==)", lock, flags=re.MULTILINE)
    assert pinned and all("--hash=sha256:" in block for block in blocks if "==" in block)
    names = {name for name, _ in pinned}
    for requirement in PROJECT["dependencies"] + PROJECT["optional-dependencies"]["test"]:
        assert re.match(r"[A-Za-z0-9-]+", requirement)[0] in names
