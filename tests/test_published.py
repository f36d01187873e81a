"""Published numbers as data: the digits that the sources print, where they stand, and what is wrong with a file."""

import json

import pytest
from typer.testing import CliRunner

from ddpm_bench.cli import app
from ddpm_bench.config.published import Claim, Published
from ddpm_bench.config.shipped import load_grid, load_published, published_names
from ddpm_bench.errors import UserError

# Row by row as printed; typed here a second time from the sources, so that a slip in a file is seen.
NUMBERS = {
    "iddpm-cifar10": "3.29 3.73 | 2.90 3.37 | 3.07 3.26 | 3.05 3.26 | 3.19 3.17 | 11.47 2.94",
    "iddpm-imagenet64": "32.5 3.99 | 31.3 3.77 | 32.2 3.66 | 27.0 3.68 | 28.0 3.62 | 56.7 3.57 | 19.2 3.57 | 40.1 3.53",
    "nll": (
        "3.81 3.35 | 3.69 3.08 | 3.57 3.14 | 3.52 - | - 2.91 | 3.52 2.87 | 3.52 2.85 | 3.48 2.90 | 3.44 2.80 | "
        "3.43 - | 3.77 3.70 | - 2.99 | 3.53 2.94"
    ),
    "ddim-cifar10": (
        "13.36 6.84 4.67 4.16 4.04 | 14.04 7.11 4.77 4.25 4.09 | 16.66 8.35 5.25 4.46 4.29 | "
        "41.07 18.36 8.01 5.78 4.73 | 367.43 133.37 32.72 9.99 3.17"
    ),
    "ddim-celeba": (
        "17.33 13.73 9.17 6.53 3.51 | 17.66 14.11 9.51 6.79 3.64 | 19.86 16.06 11.01 8.09 4.28 | "
        "33.12 26.03 18.48 13.93 5.98 | 299.71 183.83 71.71 45.20 3.26"
    ),
    "score-sde-cifar10": (
        "3.24 4.98 4.88 3.24 - | 3.19 4.79 4.74 3.21 - | 3.23 15.41 10.54 3.59 3.28 | - 3.62 - 3.21 - | - 3.60 - 3.18 - | "
        "- 3.51 - 3.06 - | - 20.43 - 19.06 -"
    ),
    "cfg-imagenet64": (
        "53.71 66.11 78.91 92.80 106.20 119.30 131.10 141.80 151.60 161.00 170.10 225.50 250.40 260.20 "
        "1.80 1.55 2.04 3.03 4.30 5.74 7.19 8.62 10.08 11.41 12.60 21.03 24.83 26.22 | "
        "52.90 64.58 76.99 88.64 101.11 112.15 122.13 131.60 140.82 150.26 158.29 212.98 237.65 248.97 "
        "1.80 1.62 2.10 2.93 4.00 5.19 6.48 7.73 8.90 10.09 11.21 18.79 22.36 23.84 | "
        "47.61 56.10 65.60 74.92 84.27 92.95 102.00 109.80 116.90 124.60 131.10 183.00 208.90 225.10 "
        "2.21 1.91 2.08 2.65 3.44 4.34 5.27 6.23 7.25 8.21 9.13 16.16 19.75 21.48"
    ),
    "guidance-imagenet": (
        "39.70 32.92 95.41 26.21 33.03 12.00 6.35 6.99 10.40 0.61 0.56 0.76 0.63 0.65 0.44 | "
        "100.98 186.70 283.92 10.94 4.59 9.11 6.02 5.25 10.93 0.69 0.82 0.88 0.63 0.52 0.32"
    ),
    "adm": (
        "2.61 3.77 0.73 0.63 - | 2.07 4.29 0.74 0.63 - | 5.91 5.09 0.70 0.65 - | 2.97 5.09 0.78 0.59 - | 5.98 7.04 0.78 0.51 - | "
        "10.94 6.02 0.69 0.63 100.98 | 4.59 5.25 0.82 0.52 186.70 | 5.44 5.32 0.81 0.49 - | 7.49 5.13 0.72 0.63 127.49 | "
        "3.94 6.14 0.83 0.53 215.84 | 26.21 6.35 0.61 0.63 39.70 | 33.03 6.99 0.56 0.65 32.92 | "
        "12.00 10.40 0.76 0.44 95.41 | 4.59 5.25 0.82 0.52 186.70 | 9.11 10.93 0.88 0.32 283.92 | "
        "23.24 10.19 0.73 0.60 - | 7.72 6.57 0.87 0.42 - | 3.85 5.86 0.84 0.53 - | 1.90 5.59 0.66 0.51 - | 2.57 - - - - | 5.57 - - - -"
    ),
    "ncsn": "8.87±0.12 25.32 | 7.32±0.12 29.8 | 8.73±0.13 31.75 | 8.40±0.07 10.87",
    "dit-imagenet": (
        "153.60 33,142,016 0.36 | 100.41 32,920,448 1.41 | 68.40 32,865,056 6.06 | 122.74 130,869,248 1.42 | "
        "68.38 130,426,496 5.56 | 43.47 130,315,808 23.01 | 118.87 458,578,432 5.01 | 45.64 457,988,224 19.70 | "
        "23.33 457,840,672 80.71 | 106.41 675,664,640 7.39 | 43.01 675,000,704 29.05 | 19.47 674,834,720 118.64"
    ),
    "cdm-imagenet": (
        "26.01±0.59 1.11 | 67.95±1.97 1.48 | 128.80±2.51 3.52 | 158.71±2.26 4.88 | - 6.18 | - 5.75 | - 5.00 | - 4.88 | "
        "127.49 7.49 | 215.84 3.94 | - 3.85 | - 2.35 | - 6.02 | - 3.41 | - 2.13"
    ),
    "dit-final": (
        "10.67 - - - - | 9.62 6.85 121.50 0.67 0.67 | 3.22 5.28 201.77 0.76 0.62 | 2.27 4.60 278.24 0.83 0.57 | "
        "12.03 7.12 105.25 0.75 0.64 | 4.64 5.77 174.77 0.81 0.57 | 3.04 5.02 240.82 0.84 0.54"
    ),
    "ldm": "4.02 0.64 0.52",
    "ldm-unconditional": "5.11 0.72 0.49 | 4.98 0.73 0.50 | 4.02 0.64 0.52 | 2.95 0.66 0.48",
    "ldm-imagenet": (
        "17.41 - - - | 8.11 - - - | 15.51 79.03 - - | 7.76 209.52 0.84 0.35 | 10.56 103.49 - - | 3.95 178.22 - - | "
        "3.60 247.67 0.87 0.48"
    ),
    "ldm-first-stages": (
        "0.086 - | 0.27 27.53 | 0.90 24.19 | 0.87 24.08 | 2.63 - | 2.04 22.27 | 7.3 - | 0.58 - | 1.14 - | 1.49 - | 5.15 - | 31.83 -"
    ),
    "mnist": "7,339,297 70 13.4 AppleM2Pro,MPS",
    "ddim-reconstruction": "0.014 0.0065 0.0023 0.0009 0.0004 0.0001 0.0001",
    "ddpm-lsun": "6.42 37.52 - | 4.21 8.53 - | 3.86 6.93 - | 7.89 19.75 - | - 5.57 2.57 | 4.02 - -",
    "ddpm-lsun-bedroom": "8.34 - | 2.65 - | 1.90 - | 2.95 - | 6.36 114,000,000 | 4.90 256,000,000",
    "reproductions": "9.475±0.174 3.249 | - 3.24 | 11.2368±0.0951 -",
    "ddpm-table4": (
        "0.00000 67.60125 | 0.00013 60.97170 | 0.00081 54.18826 | 0.00282 46.12765 | 0.00716 38.03236 | "
        "0.01507 30.80948 | 0.02866 24.43656 | 0.05415 18.47482 | 0.11994 12.02277 | 1.77581 0.95136"
    ),
}


@pytest.mark.parametrize("name", NUMBERS)
def test_the_numbers_are_the_sources_digit_by_digit(name: str) -> None:
    table = load_published(name)
    rows = [[text.replace(" ", "").removeprefix("≤") or "-" for text in table.texts(row)] for row in table.rows]
    assert " | ".join(map(" ".join, rows)) == NUMBERS[name]


def test_nothing_that_is_shipped_is_left_out_above() -> None:
    assert set(NUMBERS) == set(published_names()) - {"table1", "table2"}  # which have tests of their own


def test_labels_pair_the_numbers_with_the_right_setting() -> None:
    labels = [row.label for row in load_published("iddpm-imagenet64").rows]
    assert labels[0].startswith("T = 1000, linear, L_simple") and labels[2].endswith("linear, L_hybrid")
    assert labels[5] == labels[7] == "T = 4000, cosine, L_vlb"
    steps = [cell.settings["training"]["steps"] for cell in load_grid("iddpm-imagenet64").cells]
    assert steps == [200_000] * 6 + [1_500_000] * 2
    nll = {row.label.split(" (")[0]: row for row in load_published("nll").rows}
    assert len(nll) == 13 and "ODE" in nll["DDPM, continuous flow"].note
    assert [row.label for row in load_published("ddim-celeba").rows][-1] == "sigma-hat"


@pytest.mark.parametrize("name", ["iddpm-cifar10", "iddpm-imagenet64", "ncsn", "nll", "score-sde-cifar10"])
def test_second_hand_transcriptions_say_so(name: str) -> None:
    assert load_published(name).origin.endswith("second-hand transcription")


@pytest.mark.parametrize(
    "name",
    [
        "ddpm-lsun",
        "ddpm-lsun-bedroom",
        "ddpm-table4",
        "dit-final",
        "dit-imagenet",
        "mnist",
        "reproductions",
        "table1",
        "table2",
    ],
)
def test_the_others_do_not(name: str) -> None:
    table = load_published(name)
    assert table.origin == table.source


@pytest.mark.parametrize("name", published_names())
def test_every_table_names_its_source_its_data_and_its_columns(name: str) -> None:
    table = load_published(name)
    assert table.title and table.source and table.data and all(row.values for row in table.rows)
    assert all(any(key in row.values for row in table.rows) for key in table.columns)


def test_grids_are_published_tables_without_a_second_copy() -> None:
    table = load_published("table2")
    assert [table.texts(row) for row in table.rows] == [
        ["7.28 ± 0.10", "23.69", ""], ["8.06 ± 0.09", "13.22", ""], ["–", "–", ""], ["–", "–", ""],
        ["7.67 ± 0.13", "13.51", "≤ 3.70 (3.69)"], ["9.46 ± 0.11", "3.17", "≤ 3.75 (3.72)"],
    ]  # fmt: skip
    assert {row.group: row.label for row in load_published("table1").rows}["Conditional"] == "StyleGAN2 + ADA (v1)"


def test_the_fid_to_the_test_set_stands_with_the_row_it_is_of() -> None:
    for grid in ("table1", "table2"):
        found = {cell.name: cell.published.fid_test for cell in load_grid(grid).cells}
        assert {name: value for name, value in found.items() if value} == {"eps-mse-fixed": 5.24}


HEAD = 'title = "x"\nsource = "y"\ndata = ["z"]\n'


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('title = "x"', ["'source' is missing"]),
        ("colour = 1", ["missing"]),
        ("x = [", ["cannot be read as TOML"]),
        (
            HEAD + 'columns = { fid = "FID" }\n[[row]]\nlabel = "r"\nvalues = { fdi = 1.0 }',
            ["row 'r'", "no column 'fdi'", "did you mean 'fid'"],
        ),
        (
            HEAD + 'columns = { a = "A" }\nsecond_hnd = true\nrow = [{ label = "r", values = {} }]',
            ["second_hnd", "did you mean 'second_hand'"],
        ),
    ],
)  # fmt: skip
def test_a_faulty_file_is_explained_with_its_path(tmp_path, text: str, said: list[str]) -> None:
    path = tmp_path / "own.toml"
    path.write_text(text)
    with pytest.raises(UserError) as error:
        load_published(str(path))
    for part in [str(path), *said]:
        assert part in str(error.value)


def test_an_unknown_name_gets_a_near_miss() -> None:
    with pytest.raises(UserError, match="did you mean 'ddim-celeba'"):
        load_published("ddim-celebb")


ORDER = {"text": "a beats b", "source": "s", "metrics": ["fd_train"], "better": "a", "worse": ["b"]}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"metrics": ["fid"]}, "no metric 'fid'"),
        ({"metrics": []}, "at least 1"),
        ({"worse": []}, "either 'better' and 'worse'"),
        ({"alike": ["a", "b"], "margin": 0.1}, "either 'better' and 'worse'"),
        ({"better": None, "worse": [], "alike": ["a", "b"]}, "'margin'"),
        ({"margin": 0.1}, "'margin'"),
    ],
)
def test_a_claim_has_one_form_and_known_metrics(change: dict, said: str) -> None:
    assert Claim.model_validate(ORDER).pairs == [("a", "b")]
    with pytest.raises(ValueError, match=said):
        Claim.model_validate(ORDER | change)


def test_what_adm_printed_of_a_cell_is_what_its_own_table_has() -> None:
    cells = {cell.name: cell.published.texts for cell in load_grid("guidance-imagenet").cells}
    rows = {(row.group, row.label): row.values for row in load_published("adm").rows}
    longer = "ImageNet 256x256, 2M iterations"
    for cell, row in {
        "conditional-s0": ("ImageNet 256x256", "ADM"),
        "conditional-s1": ("ImageNet 256x256", "ADM-G"),
        "conditional-s10": (longer, "conditional, s = 10"),
        "unconditional-s0": (longer, "unconditional"),
        "unconditional-s1": (longer, "unconditional, s = 1"),
        "unconditional-s10": (longer, "unconditional, s = 10"),
    }.items():
        texts = {key: text for key, text in cells[cell].items() if text}
        assert texts == {key: str(value) for key, value in rows[row].items()}, cell


def test_an_empty_row_prints_nothing() -> None:
    assert set(Published().texts.values()) == {""}


def run(*arguments: str) -> str:
    answer = CliRunner().invoke(app, ["published", *arguments])
    assert answer.exit_code == 0, answer.output
    return answer.stdout


def test_the_command_lists_everything_and_prints_one() -> None:
    listed = run()
    for name in published_names():
        assert name in listed
    printed = run("ddim-celeba")
    assert "45.20" in printed and "sigma-hat" in printed and "second-hand" not in printed
    assert "second-hand" in run("iddpm-cifar10")


def test_the_command_prints_json_with_the_printed_digits() -> None:
    [one] = json.loads(run("ddim-celeba", "--json"))
    assert (
        one["name"] == "ddim-celeba"
        and one["rows"][-1]["values"]["fid S = 100"] == "45.20"
        and one["second_hand"] is False
    )
    assert {one["name"] for one in json.loads(run("--json"))} == {*published_names()}
