"""Conditions: records that do not belong together are set aside; differences from published ones are computed."""

import re
import shlex

import pytest
from records import EMBEDDED, INCEPTION, UNVERIFIED, make_record, paper_records, quick_records

from ddpm_bench.cli.options import numbers
from ddpm_bench.config.grid import Grid
from ddpm_bench.config.preset import load_preset, parse_set, resolve
from ddpm_bench.config.shipped import load_grid
from ddpm_bench.errors import UserError
from ddpm_bench.records.conditions import (
    Difference,
    measurement_conditions,
    model_conditions,
    sorted_out,
    unstated,
)
from ddpm_bench.records.conditions import differences as differences_in
from ddpm_bench.records.record import Divergence, Record
from ddpm_bench.report.repeat_command import command

GRID = load_grid("table2")


def changed(record: Record, section: str, **values: object) -> Record:
    """The record with other settings in one section."""
    part = getattr(record.settings, section).model_copy(update=values)
    return record.model_copy(update={"settings": record.settings.model_copy(update={section: part})})


def aside_of(records: list[Record]) -> tuple[list[Record], list[str]]:
    kept, aside = sorted_out(records, GRID)
    return kept, [f"{one.what}: {one.why}" for one in aside]


def test_records_come_out_in_the_grids_order_then_by_seed() -> None:
    records, aside = sorted_out(quick_records()[::-1], GRID)
    order = [cell.name for cell in GRID.cells]
    assert not aside and [(r.cell, r.seed) for r in records] == sorted(
        ((r.cell, r.seed) for r in records), key=lambda key: (order.index(key[0]), key[1])
    )


@pytest.mark.parametrize(
    ("section", "key", "value"),
    [("training", "steps", 7), ("sampling", "samples", 65), ("scoring", "decoder", "paper"), ("diffusion", "T", 77)],
)
def test_records_of_other_settings_than_most_are_set_aside_with_the_difference(section, key, value) -> None:
    odd = changed(make_record(GRID, "eps-L-fixed", 1), section, **{key: value})
    usual = [make_record(GRID, "mu-L-fixed", seed) for seed in (0, 1)]
    kept, [said] = aside_of([odd, *usual])
    assert kept == usual
    was = getattr(getattr(usual[0].settings, section), key)
    assert said.startswith("cell 'eps-L-fixed', seed 1: ") and f"{section}.{key}: was {was}, now {value}" in said


def test_of_equally_many_the_first_conditions_are_kept() -> None:
    first = make_record(GRID, "mu-L-fixed")
    other = make_record(GRID, "eps-L-fixed", overrides={"training": {"steps": 500}})
    assert aside_of([first, other])[0] == [first]
    assert aside_of([other, first])[0] == [other]


def test_other_data_and_another_extractor_are_set_aside() -> None:
    first, other = make_record(GRID, "mu-L-fixed"), make_record(GRID, "mu-L-fixed", 1)
    data = other.data.model_copy(update={"sha256": "f" * 64})
    assert "data_set.sha256" in aside_of([first, other.model_copy(update={"data": data})])[1][0]
    assert "extractor.sha256" in aside_of([first, other.model_copy(update={"extractor": INCEPTION})])[1][0]


def test_cells_may_differ_in_the_axes_and_in_nothing_else() -> None:
    kept, aside = aside_of([make_record(GRID, cell.name) for cell in GRID.cells])
    assert len(kept) == len(GRID.cells) and not aside


def test_where_kinds_of_network_are_an_axis_their_own_settings_set_nothing_aside() -> None:
    grid = load_grid("dit-imagenet")
    records = [make_record(grid, cell) for cell in ("unet", "s-8", "xl-2")]
    assert sorted_out(records, grid) == (records, [])


def test_a_record_of_another_grid_an_unknown_cell_or_other_axes_is_set_aside() -> None:
    record = make_record(GRID, "mu-L-fixed")
    for odd, said in (
        (record.model_copy(update={"grid": "other"}), "--grid other"),
        (record.model_copy(update={"cell": "mu-L-fix"}), "did you mean 'mu-L-fixed'"),
        (changed(record, "diffusion", parameterization="eps"), "parameterization: was mu, now eps"),
    ):
        kept, [why] = aside_of([odd, make_record(GRID, "eps-L-fixed")])
        assert [r.cell for r in kept] == ["eps-L-fixed"] and said in why


def test_the_first_of_two_records_of_one_cell_and_seed_is_kept() -> None:
    record = make_record(GRID, "mu-L-fixed")
    twin = record.model_copy(update={"created": "later"})
    kept, [said] = aside_of([record, twin])
    assert kept[0] is record and "same cell and seed" in said


def test_a_diverged_run_without_bounds_is_at_home_beside_the_others() -> None:
    gone = make_record(GRID, "mu-L-fixed", diverged=Divergence(step=1, reason="x"))
    assert aside_of([gone, make_record(GRID, "eps-L-fixed")])[1] == []


def test_no_records_and_none_that_belong_are_said_with_the_remedy_and_the_reasons() -> None:
    with pytest.raises(UserError, match="ddpm-bench ablate"):
        sorted_out([], GRID)
    with pytest.raises(UserError, match="--grid other"):
        sorted_out([make_record(GRID, "mu-L-fixed").model_copy(update={"grid": "other"})], GRID)


def differences(record: Record, grid: Grid, selection: str, key: str = "fd_train") -> tuple[Difference, ...]:
    return differences_in(record, grid, key, selection)


def test_every_number_names_all_that_it_depends_on() -> None:
    record = paper_records()[0]
    shared = {"data", "hash of the data", "size", "training steps", "weights", "checkpoint", "training.ema_decay"}
    score = {"samples", "sampling steps", "extractor", "hash of the extractor", "quantisation"}
    found = {
        key: set(model_conditions(record, key, "best")) | set(measurement_conditions(record, key))
        for key in ("is_mean", "fd_train", "fd_test", "recall", "bound_test_bits_per_dim")
    }
    assert all(shared <= names for names in found.values())
    assert all(score <= names for key, names in found.items() if not key.startswith("bound"))
    assert not score & found["bound_test_bits_per_dim"]
    assert "reference split" in found["fd_train"] and "reference split" not in found["is_mean"]
    splits = [measurement_conditions(record, key)["reference split"] for key in ("fd_train", "fd_test", "recall")]
    assert splits == ["train", "test", "train"] and "neighborhood" in found["recall"]
    assert "bound's test images" in found["bound_test_bits_per_dim"]


def test_what_the_source_does_not_state_is_not_compared_and_said() -> None:
    assert unstated(GRID, "fd_train") == ["hash of the data", "quantisation"]
    stated = {"data_sha256": "0" * 64, "quantisation": "none", "weights": "raw"}
    grid = GRID.model_copy(update={"conditions": GRID.conditions.model_copy(update=stated)})
    found = {d.name: (d.published, d.here) for d in differences(paper_records()[0], grid, "best")}
    assert unstated(grid, "fd_train") == []
    assert found["weights"] == ("raw", "ema") and found["quantisation"] == ("none", "rounded to uint8")
    assert found["hash of the data"] == ("0" * 64, "d" * 64)


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
    silent = {"nll", "ode", "settings", "data_sha256", "quantisation", "weights", "reference_images"}
    assert set(type(GRID.conditions).model_fields) - silent <= {name.replace(" ", "_") for name in found}
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


def test_precision_and_recall_depend_on_k_and_on_the_reference_images_and_no_other_score_does() -> None:
    stated = {"reference_images": 10_000, "settings": {"scoring": {"neighborhood": 5}}}
    grid = GRID.model_copy(update={"conditions": GRID.conditions.model_copy(update=stated)})
    found = {key: differences(paper_records()[0], grid, "best", key) for key in ("is_mean", "fd_train", "recall")}
    assert found["is_mean"] == found["fd_train"] == ()
    assert {(d.name, d.published, d.here) for d in found["recall"]} == {
        ("images behind precision and recall", "10,000", "50,000"),
        ("scoring.neighborhood", "5", "3"),
    }
    assert unstated(GRID, "recall")[-1] == "images behind precision and recall"
    assert "images behind precision and recall" not in unstated(grid, "recall") + unstated(GRID, "fd_train")


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


def test_the_command_names_an_older_versions_resizing_only_for_images_of_ones_own() -> None:
    own, others = ({"data": {"resize": "older"} | more} for more in ({}, {"source": "folder:a", "name": "a"}))
    lines = [command([make_record(GRID, "mu-L-fixed", overrides=overrides)], GRID) for overrides in (own, others)]
    assert ["data.resize=older" in line for line in lines] == [False, True]


def test_the_command_for_a_whole_grid_names_no_cells() -> None:
    records = [make_record(GRID, cell.name, seed) for cell in GRID.cells for seed in (0, 1, 2)]
    assert command(records, GRID) == "ddpm-bench ablate --grid table2 --preset quick --seeds 0,1,2"


def test_the_command_names_many_seeds_in_a_row_by_their_ends_as_the_option_reads_them() -> None:
    seeds = [0, *range(5, 15), 20, 21, 22]
    (listed,) = re.findall(r"--seeds (\S+)", command([make_record(GRID, "mu-L-fixed", seed) for seed in seeds], GRID))
    assert listed == "0,5-14,20,21,22" and numbers("--seeds", listed) == seeds
    assert numbers("--seeds", "7-9, 8,3-3") == [7, 8, 9, 3]


def test_the_command_asks_for_unverified_weights_where_they_were_used() -> None:
    assert "--allow-unverified-weights" in command(paper_records(extractor=UNVERIFIED), GRID)
    assert "--allow-unverified-weights" not in command(paper_records(), GRID)


def test_other_images_are_named_by_their_own_name_and_never_by_the_published_ones() -> None:
    record = make_record(GRID, "eps-mse-fixed", extractor=EMBEDDED)
    for name, shown in (("fashion-mnist-10k", "fashion-mnist-10k"), ("cifar10", "embedded")):
        named = record.model_copy(update={"data": record.data.model_copy(update={"name": name})})
        found = differences_in(named, GRID, "fd_train", "last")
        assert Difference("data", "cifar10", shown) in found
