"""Grids: what a user can get wrong is said in one message."""

import os
import subprocess
import sys
import tomllib

import pytest

from ddpm_bench.config.preset import load_preset, parse_set, resolve
from ddpm_bench.config.shipped import load_coding, load_grid, shipped_grids
from ddpm_bench.errors import UserError

GRID = shipped_grids()["table2"].read_text(encoding="utf-8")


@pytest.fixture
def table2():
    return load_grid("table2")


def written(tmp_path, text):
    path = tmp_path / "own.toml"
    path.write_text(text, encoding="utf-8")
    return str(path)


def test_table2_has_the_papers_rows_in_the_papers_order_with_its_numbers(table2):
    published = [cell.published for cell in table2.cells]
    rows = [(*cell.axes.values(), p.is_mean, p.is_std, p.fid) for cell, p in zip(table2.cells, published, strict=True)]
    assert rows == [
        ("mu", "L", "learned", 7.28, 0.10, 23.69),
        ("mu", "L", "fixed", 8.06, 0.09, 13.22),
        ("mu", "L_simple", "fixed", None, None, None),
        ("eps", "L", "learned", None, None, None),
        ("eps", "L", "fixed", 7.67, 0.13, 13.51),
        ("eps", "L_simple", "fixed", 9.46, 0.11, 3.17),
    ]
    assert [cell.published.blank for cell in table2.cells] == [False, False, True, True, False, False]


def test_both_tables_publish_the_same_bounds_for_the_papers_own_rows(table2):
    for grid in (table2, load_grid("table1")):
        published = {cell.name: cell.published for cell in grid.cells}
        nll = {name: (p.nll_test, p.nll_train, p.nll_bound) for name, p in published.items() if p.has_nll}
        assert nll == {"eps-L-fixed": (3.70, 3.69, True), "eps-mse-fixed": (3.75, 3.72, True)}


def test_cells_of_table1_are_those_of_table2_with_the_same_conditions(table2):
    table1 = load_grid("table1")
    axes = {cell.name: cell.axes for cell in table2.cells}
    assert [cell.name for cell in table1.cells] == ["eps-L-fixed", "eps-mse-fixed"]
    assert all(cell.axes == axes[cell.name] for cell in table1.cells)
    assert table1.conditions == table2.conditions
    assert [load_coding(table1.coding).is_of(cell.settings["diffusion"]) for cell in table1.cells] == [False, True]


def test_the_published_settings_are_all_that_the_paper_preset_decides(table2):
    """The defaults of the settings are the paper's; none that changes a number is missing from the conditions."""
    named = {
        "training": {"steps"},
        "sampling": {"samples", "steps"},
        "diffusion": {axis.partition(".")[2] for axis in table2.axes},
    }
    named["sampling"] |= {"spacing"}  # of fewer steps alone, and the paper visits all
    no_number = {"training": {"checkpoint_every", "log_every", "snapshot_every"}}
    paper = resolve(table2.cells[-1], load_preset("paper"), {})
    for section, values in table2.conditions.settings.items():
        resolved = {name: value for name, value in getattr(paper, section) if value is not None or name in values}
        for name in named.get(section, set()) | no_number.get(section, set()):
            resolved.pop(name, None)
        assert values == resolved
    assert set(table2.conditions.settings) == {"diffusion", "network", "training", "sampling"}


def test_groups_stand_together_with_the_other_models_before_the_cells(tmp_path):
    others = "".join(
        f'[[other]]\ngroup = "{group}"\nlabel = "{label}"\npublished = {{ fid = 1.0 }}\n'
        for group, label in (("new", "a"), ("epsilon prediction (the paper's)", "b"), ("new", "c"))
    )
    grid = load_grid(written(tmp_path, GRID + others))
    labels = [row.label for row in grid.rows]
    assert labels[:3] == ["a", "c", "b"] and labels[3:] == [cell.label for cell in (*grid.cells[3:], *grid.cells[:3])]


def test_unknown_names_get_a_near_miss(table2):
    for call, near in (
        (lambda: load_grid("tabel2"), "table2"),
        (lambda: load_preset("quik"), "quick"),
        (lambda: table2.select(["eps-mse"]), "eps-mse-fixed"),
    ):
        with pytest.raises(UserError, match=f"did you mean '{near}'"):
            call()


def test_selected_cells_come_in_the_grids_order(table2):
    assert [cell.name for cell in table2.select(["eps-L-fixed", "mu-L-fixed"])] == ["mu-L-fixed", "eps-L-fixed"]
    assert len(table2.select([])) == 6


def test_a_users_own_grid_is_read_by_path(tmp_path):
    assert load_grid(written(tmp_path, GRID.replace('name = "table2"', 'name = "own"'))).name == "own"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (('objective = "L"\nvariance = "learned"', 'variance = "learned"'), ["mu-L-learned", "objective", "missing"]),
        (('published = "blank"', ""), ["mu-mse-fixed", "published", "missing"]),
        (('name = "mu-L-fixed"', 'name = "mu-L-learned"'), ["two cells", "mu-L-learned"]),
        (('name = "mu-L-fixed"', 'name = "../mu"'), ["name", "../mu"]),
        (('label = "L, learned', 'lable = "L, learned'), ["label"]),
        (("samples = 50000", 'samples = "many"'), ["conditions.samples"]),
        (("[[cell]]", "[[cell"), ["cannot be read as TOML"]),
        (("fid = 23.69", "fdi = 23.69"), ["mu-L-learned", "fdi", "did you mean 'fid'"]),
        (("[conditions.settings.training]", "[conditions.settings.trainng]"), ["trainng", "did you mean 'training'"]),
        (("warmup = 5000", "warm_up = 5000"), ["training.warm_up", "did you mean 'warmup'"]),
        (("warmup = 5000", "warmup = -1"), ["training.warmup", "greater than or equal to 0"]),
        (("groups = 32", 'groups = "none"'), ["network.groups", "integer"]),
        (("evals = 1000\n", 'evals = "all"\n'), ["conditions.nll.evals", "integer"]),
        (("[conditions.nll]", "[conditions.nil]"), ["conditions.nil", "did you mean 'nll'"]),
        (("[[cell]]", '[[other]]\nlabel = "X"\n[[cell]]'), ["other 'X'", "published", "missing"]),
    ],
)
def test_a_faulty_grid_file_is_explained_with_its_path(tmp_path, change, said):
    path = written(tmp_path, GRID.replace(*change, 1))
    with pytest.raises(UserError) as error:
        load_grid(path)
    for part in [path, *said]:
        assert part in str(error.value)


def test_a_published_nll_without_its_conditions_is_refused(tmp_path):
    text = GRID[: GRID.index("[conditions.nll]")] + GRID[GRID.index("[conditions.settings.diffusion]") :]
    with pytest.raises(UserError, match=r"\[conditions.nll\] must say"):
        load_grid(written(tmp_path, text))


def test_a_published_code_is_read_by_name_or_path_and_checked(tmp_path):
    assert load_coding("ddpm-table4").T == 1000
    with pytest.raises(UserError, match="did you mean 'ddpm-table4'"):
        load_coding("ddpm-tabel4")
    with pytest.raises(UserError, match="'source' is missing"):
        load_coding(written(tmp_path, "T = 5"))


def test_missing_files_are_named(tmp_path):
    with pytest.raises(UserError, match="no grid file"):
        load_grid(str(tmp_path / "none.toml"))
    with pytest.raises(UserError, match="no preset file"):
        load_preset(str(tmp_path / "none.toml"))


def test_a_preset_with_a_bare_value_is_refused(tmp_path):
    with pytest.raises(UserError, match="must be a table"):
        load_preset(written(tmp_path, "steps = 5"))


def test_every_grid_file_is_plain_toml_and_nothing_here_loads_torch():
    for path in shipped_grids().values():
        tomllib.loads(path.read_text(encoding="utf-8"))
    code = "import sys, ddpm_bench.config.grid, ddpm_bench.records.record, ddpm_bench.records.compare; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


# ---- cells with settings of their own ----------------------------------------------------------------------------------

CHAINS = """
name = "chains"
title = "t"
source = "s"
without.quick = ["long"]
[conditions]
data = "cifar10"
size = 32
samples = 50000
training_steps = 800000
extractor = "inception"
checkpoint = "last"
[settings.diffusion]
parameterization = "eps"
objective = "L_simple"
variance = "fixed"
[settings.training]
learning_rate = 1e-4
[preset.quick.training]
steps = 7
[[cell]]
name = "short"
label = "short"
settings = { sampling = { steps = 10 } }
preset.quick.sampling.steps = 5
published = { fid = 4.0 }
[[cell]]
name = "long"
label = "long"
settings = { sampling = { steps = 50 }, diffusion = { variance = "fixed-beta-tilde" } }
published = { fid = 3.0 }
"""


@pytest.fixture
def chains(tmp_path):
    return load_grid(written(tmp_path, CHAINS))


def test_a_cells_settings_are_the_presets_then_the_grids_then_its_own_then_the_grids_for_this_preset(chains):
    short, long = chains.cells
    quick, smoke = load_preset("quick"), load_preset("smoke")
    assert resolve(short, smoke, {}).training.steps == smoke.sections["training"]["steps"]
    settings = resolve(short, quick, {})
    assert (settings.training.steps, settings.training.learning_rate, settings.sampling.steps) == (7, 1e-4, 5)
    assert settings.training.batch == quick.sections["training"]["batch"]
    settings = resolve(long, quick, parse_set(["training.learning_rate=3e-4"]))
    assert (settings.training.learning_rate, settings.sampling.steps) == (3e-4, 50)
    assert (settings.diffusion.parameterization, settings.diffusion.variance) == ("eps", "fixed-beta-tilde")


def test_the_axes_of_a_grid_are_what_its_cells_say_and_cannot_be_overridden(chains):
    assert chains.axes == ("sampling.steps", "diffusion.variance")
    assert chains.cells[0].axes_under("quick") == {"sampling.steps": 5}
    with pytest.raises(UserError, match=r"sampling\.steps is an axis of the grid"):
        resolve(chains.cells[0], load_preset("quick"), parse_set(["sampling.steps=3"]))


def test_a_preset_leaves_cells_out_unless_they_are_asked_for(chains):
    assert [cell.name for cell in chains.select(None, "quick")] == ["short"]
    assert [cell.name for cell in chains.select(None, "paper")] == ["short", "long"]
    assert [cell.name for cell in chains.select(["long"], "quick")] == ["long"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("steps = 10 }", "stepz = 10 }"), ["cell 'short'", "sampling.stepz", "did you mean 'steps'"]),
        (("sampling = { steps = 10 }", "sampling = 10"), ["cell 'short', settings, sampling"]),
        (("[preset.quick.training]\nsteps = 7", "[preset.quick]\nsteps = 7"), ["settings stand in sections"]),
        (("learning_rate = 1e-4", "learning_rate = -1"), ["learning_rate", "greater than 0"]),
        (('variance = "fixed"\n', ""), ["cell 'short'", "'variance' is missing", "[settings.diffusion]"]),
        (('quick = ["long"]', 'quick = ["lung"]'), ["[without] quick", "did you mean 'long'"]),
        (('[[cell]]\nname = "short"', '[cell]\nname = "short"'), ["cannot be read as TOML"]),
    ],
)
def test_faulty_settings_of_cells_are_explained(tmp_path, change, said):
    path = written(tmp_path, CHAINS.replace(*change, 1))
    with pytest.raises(UserError) as error:
        load_grid(path)
    for part in said:
        assert part in str(error.value)


@pytest.mark.parametrize("name", list(shipped_grids()))
def test_every_shipped_grid_resolves_under_the_presets_of_a_laptop(name):
    grid = load_grid(name)
    for preset in map(load_preset, ("smoke", "quick", "study")):
        for cell in grid.select(None, preset.name):
            settings = resolve(cell, preset, {})
            assert {axis: getattr(getattr(settings, axis.split(".")[0]), axis.split(".")[1]) for axis in cell.axes} == (
                cell.axes_under(preset.name)
            )


def test_a_named_pipe_is_no_grid(tmp_path):
    os.mkfifo(tmp_path / "pipe.toml")
    for load in (load_grid, load_preset):
        with pytest.raises(UserError, match="no regular file"):
            load(str(tmp_path / "pipe.toml"))


def test_a_cell_whose_name_is_a_long_number_is_refused_by_its_place(tmp_path):
    shipped = shipped_grids()["table2"].read_text(encoding="utf-8")
    (tmp_path / "g.toml").write_text(shipped.replace('name = "mu-L-fixed"', f"name = 0x{'f' * 5000}"))
    with pytest.raises(UserError, match=r"cell '2', name: "):
        load_grid(str(tmp_path / "g.toml"))
