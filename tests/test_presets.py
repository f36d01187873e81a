"""Presets, `--set` and the settings that come of them: what a user can get wrong is said in one message."""

from typing import Literal

import pytest
from pydantic import Field
from test_grid import table2, written

from ddpm_bench.config.networks import NETWORKS, NetworkSettings, UNetSettings
from ddpm_bench.config.preset import load_preset, parse_set, resolve
from ddpm_bench.config.shipped import load_grid, shipped_presets
from ddpm_bench.errors import UserError

__all__ = ["table2"]  # a fixture


def test_the_paper_preset_is_the_papers_experiment(table2):
    settings = resolve(table2.cells[-1], load_preset("paper"), {})
    assert settings.data.source == "cifar10" and settings.data.size == 32
    diffusion = settings.diffusion
    assert (diffusion.schedule, diffusion.T, diffusion.beta_1, diffusion.beta_T) == ("linear", 1000, 1e-4, 0.02)
    assert diffusion.fixed_variance == "fixed-beta"
    network = settings.network
    assert (network.base, network.multipliers, network.blocks, network.attention) == (128, (1, 2, 2, 2), 2, (16,))
    assert (network.groups, network.dropout) == (32, 0.1)
    training = settings.training
    assert (training.steps, training.batch, training.learning_rate, training.warmup) == (800_000, 128, 2e-4, 5000)
    assert (training.clip, training.ema_decay, training.ema_ramp, training.flips) == (1.0, 0.9999, False, True)
    assert training.snapshot_every  # the paper reports the checkpoint of the lowest FID
    assert settings.sampling.samples == 50_000 and settings.sampling.steps is None
    assert settings.scoring.extractor == "inception"


def test_study_is_quick_but_longer():
    quick, study = (load_preset(name).sections for name in ("quick", "study"))
    length = {"steps", "checkpoint_every", "log_every", "snapshot_every"}
    assert {**study, "training": {}} == {**quick, "training": {}}
    assert {key for key in study["training"] if study["training"][key] != quick["training"].get(key)} == length
    assert study["training"]["steps"] == 10 * quick["training"]["steps"]


def test_cpu_differs_from_study_at_step_2000_in_T_and_warmup_alone():
    cpu, study = (load_preset(name).sections for name in ("cpu", "study"))
    apart = {"diffusion": {}, "training": {}, "scoring": {}}  # how bounds are measured is in the last
    assert {**cpu, **apart} == {**study, **apart}
    no_number = {"steps", "checkpoint_every", "log_every", "snapshot_every"}
    trained = [{key: value for key, value in one["training"].items() if key not in no_number} for one in (cpu, study)]
    assert {key for key in trained[0] if trained[0][key] != trained[1][key]} == {"warmup"}
    assert cpu["training"]["steps"] % study["training"]["snapshot_every"] == 0 and cpu["diffusion"] == {"T": 1000}


def test_quick_keeps_the_papers_final_signal_level():
    quick = load_preset("quick").sections["diffusion"]
    assert "diffusion" not in load_preset("paper").sections  # the defaults, with which quick is compared

    def log_alpha_bar(T, beta_1, beta_T):
        import numpy as np

        return np.log1p(-np.linspace(beta_1, beta_T, T)).sum()

    assert abs(log_alpha_bar(**quick) - log_alpha_bar(1000, 1e-4, 0.02)) < 1


@pytest.mark.parametrize("name", list(shipped_presets()))
def test_every_preset_resolves_for_every_cell_and_says_what_it_is(table2, name):
    preset = load_preset(name)
    assert preset.summary
    for cell in table2.cells:
        settings = resolve(cell, preset, {})
        assert {axis: getattr(settings.diffusion, axis.removeprefix("diffusion.")) for axis in table2.axes} == cell.axes


def test_set_overrides_the_preset_and_reads_toml_values(table2):
    assigned = ["training.steps=7", "network.multipliers=[1, 2, 4]", "data.source=folder:/x", "training.flips=true"]
    overrides = parse_set(assigned)
    settings = resolve(table2.cells[0], load_preset("smoke"), overrides)
    assert settings.training.steps == 7 and settings.training.flips is True
    assert settings.network.multipliers == (1, 2, 4)
    assert settings.data.source == "folder:/x"


@pytest.mark.parametrize(
    ("assignment", "said"),
    [
        ("training.stepz=5", ["training.stepz", "did you mean 'steps'"]),
        ("trainng.steps=5", ["trainng", "did you mean 'training'"]),
        ("training.steps=0", ["training.steps", "greater than or equal to 1", "0"]),
        ("training.steps=many", ["training.steps", "integer", "many"]),
        ("network.groups=7", ["network.groups = 7", "does not divide"]),
        ("data.size=17", ["data.size = 17", "multiple of 2"]),
        ("sampling.steps=11", ["sampling.steps = 11", "diffusion.T = 10"]),
        ("training.snapshot_every=101", ["snapshot_every = 101"]),
        ("scoring.bound_images=1", ["scoring.bound_images", "use 2 or more"]),
        ("steps=5", ["section.key=value"]),
        ("diffusion.variance=learned", ["axis", "--cells"]),
    ],
)
def test_a_bad_override_names_the_key_the_rule_and_the_remedy(table2, assignment, said):
    with pytest.raises(UserError) as error:
        resolve(table2.cells[0], load_preset("smoke"), parse_set([assignment]))
    for part in said:
        assert part in str(error.value)


@pytest.mark.parametrize(("said", "limit"), [("none", None), ("1e9", None), ("0.5", 0.5)])
def test_gradients_that_are_not_clipped_are_said_to_be_so_as_older_presets_said_it_too(said, limit) -> None:
    preset, cell = load_preset("smoke"), load_grid("table2").cells[0]
    training = resolve(cell, preset, parse_set([f"training.clip={said}"])).training
    assert training.clip == limit
    assert training.longest_gradient == (float("inf") if limit is None else limit)
    assert type(training).model_validate_json(training.model_dump_json()) == training


def test_none_stands_for_no_value_where_there_may_be_none() -> None:
    cell, preset = load_grid("table2").cells[0], load_preset("quick")
    settings = resolve(cell, preset, parse_set(["sampling.steps=none", "scoring.bound_evals=none", "data.resize=none"]))
    assert (settings.sampling.steps, settings.scoring.bound_evals, settings.data.resize) == (None, None, None)
    with pytest.raises(UserError, match=r"training\.steps.*not 'none'"):
        resolve(cell, preset, parse_set(["training.steps=none"]))


def test_a_limit_of_gradients_is_a_number_above_zero_or_none() -> None:
    for said in ("0", "inf", "never"):
        with pytest.raises(UserError, match="clip"):
            resolve(load_grid("table2").cells[0], load_preset("smoke"), parse_set([f"training.clip={said}"]))


# ---- kinds of network -------------------------------------------------------------------------------------------------


class MlpSettings(NetworkSettings):
    """A network of another kind, with a setting of its own."""

    kind: Literal["mlp"] = "mlp"
    width: int = Field(8, ge=2)


@pytest.fixture
def mlp(monkeypatch):
    monkeypatch.setitem(NETWORKS, "mlp", MlpSettings)


def network_of(table2, preset, *assignments):
    return resolve(table2.cells[0], preset, parse_set(assignments)).network


def test_what_a_preset_says_of_a_network_is_dropped_with_its_kind_and_nothing_else_is(table2, mlp):
    smoke = load_preset("smoke")
    assert smoke.sections["network"]["base"] != UNetSettings().base
    assert network_of(table2, smoke, "network.kind=mlp") == MlpSettings()
    chosen = resolve(table2.cells[0], smoke, parse_set(["network.kind=mlp", "network.width=16"]))
    assert chosen.network == MlpSettings(width=16)
    assert chosen.training == resolve(table2.cells[0], smoke, {}).training
    assert chosen.model_dump(mode="json")["network"] == {"kind": "mlp", "width": 16}


def test_the_kind_that_a_preset_has_keeps_what_it_says(table2, mlp, tmp_path):
    smoke = load_preset("smoke")
    assert network_of(table2, smoke, "network.kind=unet") == network_of(table2, smoke)
    own = load_preset(written(tmp_path, '[data]\nsize = 16\n[network]\nkind = "mlp"\nwidth = 32\n'))
    assert network_of(table2, own) == network_of(table2, own, "network.kind=mlp") == MlpSettings(width=32)
    small = ["network.kind=unet", "network.attention=[]"]
    assert network_of(table2, own, *small) == UNetSettings(attention=())


@pytest.mark.parametrize(
    ("assignments", "said"),
    [
        (
            ["network.kind=unett"],
            ["no kind of network 'unett'", "did you mean 'unet'", "Known: unet, dit, mixed, mlp."],
        ),
        (["network.kind=[1]"], ["no kind of network '[1]'", "Known: unet, dit, mixed, mlp."]),
        (["network.kind=mlp", "network.widht=4"], ["network.widht", "did you mean 'width'", "Known: kind, width."]),
        (["network.kind=mlp", "network.base=16"], ["unknown key 'network.base'", "Known: kind, width."]),
        (["network.kind=mlp", "network.width=1"], ["network.width", "greater than or equal to 2", "1"]),
        (["network.width=16"], ["unknown key 'network.width'", "Known: kind, classes"]),
    ],
)
def test_what_a_kind_of_network_does_not_take_is_said_with_what_it_does(table2, mlp, assignments, said):
    with pytest.raises(UserError) as error:
        network_of(table2, load_preset("smoke"), *assignments)
    for part in said:
        assert part in str(error.value)
