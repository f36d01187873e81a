"""Conditions: records that do not belong together are refused, and differences from the published ones are computed."""

import shlex

import pytest
from records import EMBEDDED, INCEPTION, UNVERIFIED, make_record, paper_records, quick_records

from ddpm_bench.errors import UserError
from ddpm_bench.grid import Grid, load_grid, load_preset, parse_set, resolve
from ddpm_bench.report.conditions import checked, command, differences
from ddpm_bench.store import Record

GRID = load_grid("table2")


def changed(record: Record, section: str, **values: object) -> Record:
    """The record with other settings in one section."""
    part = getattr(record.settings, section).model_copy(update=values)
    return record.model_copy(update={"settings": record.settings.model_copy(update={section: part})})


def test_records_come_out_in_the_grids_order_then_by_seed() -> None:
    records = checked(quick_records()[::-1], GRID)
    order = [cell.name for cell in GRID.cells]
    assert [(r.cell, r.seed) for r in records] == sorted(
        ((r.cell, r.seed) for r in records), key=lambda key: (order.index(key[0]), key[1])
    )


@pytest.mark.parametrize(
    ("section", "key", "value"),
    [("training", "steps", 7), ("sampling", "samples", 65), ("scoring", "decoder", "paper"), ("diffusion", "T", 77)],
)
def test_mixed_settings_are_refused_and_the_difference_is_printed(section: str, key: str, value: object) -> None:
    first, other = make_record(GRID, "mu-L-fixed"), make_record(GRID, "eps-L-fixed", 1)
    with pytest.raises(UserError, match="eps-L-fixed', seed 1") as error:
        checked([first, changed(other, section, **{key: value})], GRID)
    was = getattr(getattr(first.settings, section), key)
    assert f"{section}.{key}: was {was}, now {value}" in str(error.value)


def test_other_data_and_another_extractor_are_refused() -> None:
    first, other = make_record(GRID, "mu-L-fixed"), make_record(GRID, "mu-L-fixed", 1)
    data = other.data.model_copy(update={"sha256": "f" * 64})
    with pytest.raises(UserError, match=r"data_set\.sha256"):
        checked([first, other.model_copy(update={"data": data})], GRID)
    with pytest.raises(UserError, match=r"extractor\.sha256"):
        checked([first, other.model_copy(update={"extractor": INCEPTION})], GRID)


def test_cells_may_differ_in_the_axes_and_in_nothing_else() -> None:
    assert len(checked([make_record(GRID, cell.name) for cell in GRID.cells], GRID)) == len(GRID.cells)


def test_a_record_of_another_grid_an_unknown_cell_or_other_axes_is_refused() -> None:
    record = make_record(GRID, "mu-L-fixed")
    with pytest.raises(UserError, match="--grid other"):
        checked([record.model_copy(update={"grid": "other"})], GRID)
    with pytest.raises(UserError, match="did you mean 'mu-L-fixed'"):
        checked([record.model_copy(update={"cell": "mu-L-fix"})], GRID)
    with pytest.raises(UserError, match="parameterization: was mu, now eps"):
        checked([changed(record, "diffusion", parameterization="eps")], GRID)


def test_two_records_of_one_cell_and_seed_are_refused() -> None:
    record = make_record(GRID, "mu-L-fixed")
    with pytest.raises(UserError, match="Two records"):
        checked([record, record], GRID)


def test_no_records_is_said_with_the_remedy() -> None:
    with pytest.raises(UserError, match="ddpm-bench ablate"):
        checked([], GRID)


def test_the_papers_own_conditions_differ_in_nothing_at_the_best_checkpoint() -> None:
    record = paper_records()[0]
    assert differences(record, GRID, "best") == ()
    assert [d.name for d in differences(record, GRID, "last")] == ["checkpoint"]


def test_a_grid_of_last_checkpoints_compares_with_last_checkpoints() -> None:
    conditions = GRID.conditions.model_copy(update={"checkpoint": "last"})
    grid = GRID.model_copy(update={"conditions": conditions})
    assert differences(paper_records()[0], grid, "last") == ()


def test_quick_differs_in_every_named_condition_and_in_the_settings_it_changes() -> None:
    record = quick_records()[0]
    found = {d.name: (d.published, d.here) for d in differences(record, GRID, "last")}
    assert set(type(GRID.conditions).model_fields) - {"nll", "settings"} <= {name.replace(" ", "_") for name in found}
    assert found["samples"] == ("50,000", f"{record.settings.sampling.samples:,}")
    assert found["sampling steps"] == ("1,000", f"{record.settings.diffusion.T:,}")
    assert found["network.multipliers"] == ("1, 2, 2, 2", ", ".join(map(str, record.settings.network.multipliers)))
    assert found["training.ema_ramp"] == ("off", "on")


@pytest.mark.parametrize(
    ("section", "values", "name"),
    [
        ("data", {"source": "folder:/elsewhere"}, "data"),
        ("data", {"size": 64}, "size"),
        ("sampling", {"samples": 10_000}, "samples"),
        ("sampling", {"steps": 50}, "sampling steps"),
        ("sampling", {"clip_x0": False}, "sampling.clip_x0"),
        ("training", {"steps": 700_000}, "training steps"),
        ("training", {"ema_decay": 0.999}, "training.ema_decay"),
        ("network", {"base": 64}, "network.base"),
        ("diffusion", {"schedule": "cosine"}, "diffusion.schedule"),
    ],
)
def test_each_single_change_is_a_difference(section: str, values: dict, name: str) -> None:
    record = changed(paper_records()[0], section, **values)
    assert [d.name for d in differences(record, GRID, "best")] == [name]


def test_another_papers_grid_is_held_against_its_own_settings_alone() -> None:
    record = changed(paper_records()[0], "diffusion", schedule="cosine", T=4000)
    settings = {"diffusion": {"schedule": "cosine", "T": 4000}, "network": {"blocks": 3}}
    conditions = GRID.conditions.model_copy(update={"settings": settings, "sampling_steps": 4000})
    found = differences(record, GRID.model_copy(update={"conditions": conditions}), "best")
    assert [(d.name, d.published, d.here) for d in found] == [("network.blocks", "3", "2")]


def test_intervals_of_logging_and_checkpoints_change_no_number_and_are_no_difference() -> None:
    record = changed(paper_records()[0], "training", log_every=7, checkpoint_every=11, snapshot_every=None)
    assert differences(record, GRID, "best") == ()


def test_unverified_weights_are_a_difference() -> None:
    [found] = differences(paper_records(extractor=UNVERIFIED)[0], GRID, "best")
    assert (found.name, found.here) == ("extractor", "inception (unverified weights)")


def test_an_extractor_of_ones_own_is_not_inception_whatever_its_name() -> None:
    record = changed(paper_records()[0], "scoring", extractor="/home/me/extractor.safetensors")
    assert "extractor" in [d.name for d in differences(record, GRID, "best")]
    assert "extractor" in [
        d.name for d in differences(make_record(GRID, "mu-L-fixed", extractor=EMBEDDED), GRID, "last")
    ]


def settings_of(line: str, grid: Grid, cell: str) -> object:
    """The settings that a command line of ablate stands for."""
    words = shlex.split(line)
    assigned = [words[i + 1] for i, word in enumerate(words) if word == "--set"]
    [row] = grid.select([cell])
    return resolve(row, load_preset(words[words.index("--preset") + 1]), parse_set(assigned))


@pytest.mark.parametrize(
    "overrides",
    [
        {},
        {"training": {"steps": 77, "ema_ramp": False}, "network": {"multipliers": [1, 2, 4], "attention": []}},
        {"data": {"name": "it's mine", "source": "folder:/a b"}, "sampling": {"steps": 10}},
        {"data": {"name": "2024", "source": "npz:true"}},
        {"scoring": {"decoder": "paper"}, "diffusion": {"schedule": "cosine"}},
    ],
)
def test_the_command_stands_for_the_settings_that_were_measured(overrides: dict) -> None:
    records = [make_record(GRID, "mu-L-fixed", seed, overrides=overrides) for seed in (0, 2)]
    line = command(records, GRID)
    assert settings_of(line, GRID, "mu-L-fixed") == records[0].settings
    assert line.startswith("ddpm-bench ablate --grid table2 --preset quick --cells mu-L-fixed --seeds 0,2")


def test_the_command_for_a_whole_grid_names_no_cells() -> None:
    records = [make_record(GRID, cell.name, seed) for cell in GRID.cells for seed in (0, 1, 2)]
    assert command(records, GRID) == "ddpm-bench ablate --grid table2 --preset quick --seeds 0,1,2"


def test_the_command_asks_for_unverified_weights_where_they_were_used() -> None:
    assert "--allow-unverified-weights" in command(paper_records(extractor=UNVERIFIED), GRID)
    assert "--allow-unverified-weights" not in command(paper_records(), GRID)
