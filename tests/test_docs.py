"""The pages keep their word: every example runs as it is printed, every command, link and test that they name exists."""

import re
import shlex
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import command_of, parsed
from PIL import Image
from safetensors.torch import load_file

from ddpm_bench.config.networks import NETWORKS
from ddpm_bench.config.preset import load_preset, resolve
from ddpm_bench.config.settings import DataSettings
from ddpm_bench.config.shipped import load_grid, shipped_presets
from ddpm_bench.data import SOURCES, load_data
from ddpm_bench.data.codec import CODECS
from ddpm_bench.diffusion.objective import OBJECTIVES
from ddpm_bench.diffusion.parameterization import PARAMETERIZATIONS
from ddpm_bench.diffusion.process import q_sample
from ddpm_bench.diffusion.samplers import SAMPLERS
from ddpm_bench.diffusion.schedule import linear
from ddpm_bench.experiment.cell import scoring_steps
from ddpm_bench.experiment.launchers import LAUNCHERS
from ddpm_bench.records.record import Record, read_record

ROOT = Path(__file__).parent.parent
DOCS = {path.stem: path.read_text(encoding="utf-8") for path in (ROOT / "docs").glob("*.md")}
PAGES = {
    path: path.read_text(encoding="utf-8")
    for path in (*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"))
    if path.name != "CHANGELOG.md"
}
"""All that a reader is sent to; the changelog tells of commands that are gone."""


def examples(page: str, name: str) -> list[str]:
    return re.findall(rf"<!-- example: {re.escape(name)} -->\n```\w+\n(.*?)```", DOCS[page], re.DOTALL)


def run_commands(call, text: str) -> None:
    for line in text.splitlines():
        program, *arguments = shlex.split(line)
        assert program == "ddpm-bench"
        done = call(*arguments)
        assert done.code == 0, f"{line}\n{done.err}"


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.stem)
def test_every_command_on_a_page_is_understood(page: Path) -> None:
    blocks = "".join(re.findall(r"```(?:sh|console)\n(.*?)```", PAGES[page], re.DOTALL))
    commands = re.findall(r"^(?:\$ |\w+=\S+ |  )?ddpm-bench ((?:(?! #| &&).)+)", blocks, re.MULTILINE)
    assert len(commands) == len(re.findall(r"^.*\bddpm-bench [a-z].*$", blocks, re.MULTILINE))
    for command in commands:
        parsed(shlex.split(command))


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.stem)
def test_every_option_of_a_command_within_a_sentence_is_there(page: Path) -> None:
    for line in re.findall(r"`ddpm-bench ([^`]* --[^`]*)`", PAGES[page]):
        command, rest = command_of(line.split())
        known = {option for each in command.params for option in (*each.opts, *each.secondary_opts)}
        assert {word for word in rest if word.startswith("--")} <= known, line


def test_every_option_that_stands_alone_in_a_sentence_is_some_commands() -> None:
    known = set(re.findall(r"--[\w-]+", DOCS["cli"]))
    for page, text in PAGES.items():
        for option in re.findall(r"`(--[a-zA-Z][\w-]*)[ /`]", text):
            assert option in known, f"{page.name}: {option}"


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.stem)
def test_every_link_leads_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", PAGES[page]):
        if target.startswith("https://"):
            continue
        path, _, anchor = target.partition("#")
        there = (page.parent / path).resolve() if path else page
        assert there.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.*)$", there.read_text(encoding="utf-8"), re.MULTILINE)
            assert anchor in {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}, (
                target
            )


def test_the_first_page_leads_to_every_other() -> None:
    assert {f"docs/{name}.md" for name in DOCS} <= set(re.findall(r"\]\((docs/[^)#]+)", PAGES[ROOT / "README.md"]))


def test_the_data_of_the_package_have_a_name_of_their_own() -> None:
    """`embedded` is the extractor; as data it is the value of an option alone."""
    for page, text in PAGES.items():
        for words in re.findall(r"embedded (?:data|images|pictures|Fashion)\b", text):
            raise AssertionError(f"{page.name}: {words}")


def test_the_python_example_samples_and_scores_a_users_own_network(capsys) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", DOCS["python"], re.DOTALL)
    scope: dict = {}
    exec(compile(code, "python.md", "exec"), scope)
    assert scope["images"].shape == (8, 1, 16, 16)
    assert "bits/dim" in capsys.readouterr().out


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty folder to type commands in, with a cache of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def test_the_tour_can_be_taken(call, folder) -> None:
    for block in re.findall(r"```sh\n(.*?)```", DOCS["tour"], re.DOTALL):
        run_commands(call, block)
    for made in ("report/report.md", "progressive.png", "between.png", "coding/progressive.md", "checkpoints/table.md"):
        assert (folder / "tour" / made).stat().st_size > 0


def test_a_cell_of_ones_own(call, folder) -> None:
    (grid,), (command, _) = examples("extending", "mine.toml"), examples("extending", "command")
    (folder / "mine.toml").write_text(grid)
    run_commands(call, command)
    assert (folder / "results" / "mine-smoke" / "eps-small-seed0.json").exists()


def test_one_model_sampled_in_two_ways(call, folder) -> None:
    (grid,), (command,) = examples("extending", "ways.toml"), examples("extending", "command of ways")
    (folder / "ways.toml").write_text(grid)
    run_commands(call, command)
    records = [read_record(folder / "results" / "ways-smoke" / f"ddim-{steps}-seed0.json") for steps in (10, 50)]
    assert [record.sampling_steps for record in records] == [3, 9]
    assert {record.trained_with for record in records} == {"ddim-10"} and records[0].axes == ("sampling.steps",)
    assert "| DDIM |" in (folder / "reports" / "ways-smoke" / "report.md").read_text(encoding="utf-8")


def test_an_axis_value_of_ones_own(call, folder, monkeypatch) -> None:
    monkeypatch.setattr("ddpm_bench.diffusion.parameterization.PARAMETERIZATIONS", dict(PARAMETERIZATIONS))
    known = dict(PARAMETERIZATIONS)
    try:
        scope: dict = {}
        exec(examples("extending", "v.py")[0].replace("PARAMETERIZATIONS[V.name] = V()", ""), scope)
        PARAMETERIZATIONS["v"] = scope["V"]()
        schedule, t = linear(10, 1e-2, 0.5), torch.arange(1, 11)
        x0, eps = torch.randn(10, 1, 4, 4, dtype=torch.float64), torch.randn(10, 1, 4, 4, dtype=torch.float64)
        x_t = q_sample(schedule, x0, t, eps)
        v = PARAMETERIZATIONS["v"]
        torch.testing.assert_close(
            v.x0(schedule, v.target(schedule, x0, x_t, eps, t), x_t, t), x0, rtol=1e-9, atol=1e-9
        )
        grid = examples("extending", "mine.toml")[0].replace('parameterization = "eps"', 'parameterization = "v"')
        (folder / "mine.toml").write_text(grid)
        run_commands(call, "ddpm-bench ablate --grid mine.toml --preset smoke --set training.steps=50 --workers 1")
    finally:
        PARAMETERIZATIONS.clear()
        PARAMETERIZATIONS.update(known)


@pytest.fixture
def tables():
    """Every table that an example adds to, as it was, when the test ends."""
    tables = (SAMPLERS, OBJECTIVES, NETWORKS, CODECS, LAUNCHERS)
    before = [dict(table) for table in tables]
    yield
    for table, was in zip(tables, before, strict=True):
        table.clear()
        table.update(was)


def run_example(name: str) -> None:
    (text,) = examples("extending", name)
    exec(compile(text, name, "exec"), {"__name__": name})


SHORT = "ablate --preset smoke --cells eps-mse-fixed --set training.steps=20 --set sampling.samples=12 --no-report"
"""A cell that shows that something runs, whatever its numbers are."""


def short_cell(call, *more: str) -> Record:
    """Its record, measured in the working folder; then its checkpoint is sampled, since all must come back with it."""
    done = call(*shlex.split(SHORT), "--results", "r", *more)
    assert done.code == 0, done.err
    done = call("sample", "--ckpt", "r/work/eps-mse-fixed-seed0", "--samples", "12", "--out", "r/s.npz")
    assert done.code == 0, done.err
    assert np.load("r/s.npz")["images"].shape[0] == 12
    return read_record(Path("r/eps-mse-fixed-seed0.json"))


def test_a_sampler_of_ones_own(call, folder, tables) -> None:
    run_example("sampler.py")
    record = short_cell(call, "--workers", "1", "--set", "sampling.sampler=calmer", "--set", "sampling.eta=0.5")
    assert record.settings.sampling.options == {"eta": 0.5} and record.last.metrics["fd_train"] > 0


def test_an_objective_with_times_of_its_own(call, folder, tables) -> None:
    run_example("objective.py")
    grid = examples("extending", "mine.toml")[0].replace('objective = "L_simple"', 'objective = "L_simple by loss"')
    (folder / "mine.toml").write_text(grid.replace("eps-small", "eps-mse-fixed"))
    record = short_cell(call, "--workers", "1", "--grid", "mine.toml")
    assert record.settings.diffusion.objective == "L_simple by loss"
    (snapshot,) = (folder / "r" / "work" / "eps-mse-fixed-seed0").glob("step-*")
    assert len(load_file(snapshot / "times.safetensors")["means"].unique()) > 1  # it has learned, and is kept


def test_a_network_that_is_no_u_net(call, folder, tables, monkeypatch) -> None:
    (folder / "plain.py").write_text(examples("extending", "plain.py")[0])
    monkeypatch.syspath_prepend(str(folder))
    run_example("network.py")
    record = short_cell(call, "--workers", "1", "--set", "network.kind=plain", "--set", "network.width=8")
    assert record.settings.network.model_dump() == {"kind": "plain", "width": 8, "layers": 3}
    assert record.parameters < 5000


def test_a_codec_of_ones_own(call, folder, tables) -> None:
    run_example("codec.py")
    record = short_cell(
        call, "--workers", "1", "--set", "diffusion.codec=patches", "--set", "network.attention=[]",
        "--set", "network.groups=4",
    )  # fmt: skip
    assert record.settings.diffusion.codec == "patches"
    assert 0 < record.last.metrics["bound_test_bits_per_dim"] < 20
    bound = record.every_term
    assert bound.total == pytest.approx(bound.prior + sum(bound.terms), rel=1e-9)


def test_a_launcher_of_ones_own(call, folder, tables) -> None:
    run_example("launcher.py")
    done = call(
        *shlex.split(SHORT.replace("--cells eps-mse-fixed", "--cells eps-mse-fixed,eps-L-fixed")), "--results", "r",
        "--workers", "2", "--launcher", "seed-by-seed",
    )  # fmt: skip
    assert done.code == 0, done.err
    assert len(list(Path("r").glob("*-seed0.json"))) == 2
    done = call(*shlex.split(SHORT), "--results", "s", "--launcher", "seed-by")
    assert done.code == 2 and "did you mean 'seed-by-seed'?" in done.err


def test_a_data_set_of_ones_own() -> None:
    known = dict(SOURCES)
    try:
        exec(examples("extending", "stripes.py")[0], {})
        data = load_data(DataSettings(source="stripes", size=16))
        assert (data.name, len(data.train), len(data.test), data.shape) == ("stripes", 2000, 500, (1, 16, 16))
        assert set(data.train.images.unique().tolist()) == {0, 255}
    finally:
        SOURCES.clear()
        SOURCES.update(known)


def test_an_extractor_of_ones_own(call, folder) -> None:
    rng = np.random.default_rng(0)
    for split, count in (("train", 40), ("test", 20)):
        for label in ("dark", "light"):
            (folder / "photos" / split / label).mkdir(parents=True)
            for i in range(count):
                pixels = rng.integers(0, 128, (16, 16), dtype=np.uint8) + (128 if label == "light" else 0)
                Image.fromarray(pixels.astype(np.uint8)).save(folder / "photos" / split / label / f"{i}.png")
    np.savez(folder / "samples.npz", rng.integers(0, 256, (40, 16, 16, 1), dtype=np.uint8))
    run_commands(call, examples("extending", "command")[1])
    assert (folder / "photos.safetensors").exists()


@pytest.mark.parametrize("name", re.findall(r"`(test_\w+)`", DOCS["pitfalls"] + DOCS["reliability"]))
def test_every_pitfall_and_promise_names_a_test_that_is_there(name: str) -> None:
    assert any(f"def {name}(" in path.read_text(encoding="utf-8") for path in (ROOT / "tests").glob("test_*.py"))


def test_all_pitfalls_are_told() -> None:
    assert len(re.findall(r"^\|.*`test_\w+` \|$", DOCS["pitfalls"], re.MULTILINE)) == 49


@pytest.mark.parametrize("name", list(shipped_presets()))
def test_the_table_of_presets_says_what_the_presets_say(name: str) -> None:
    settings = resolve(load_grid("table2").cells[-1], load_preset(name), {})
    (row,) = re.findall(rf"^\| `{name}` \|.*$", DOCS["presets"], re.MULTILINE)
    training, chain = settings.training, settings.sampling.steps or settings.diffusion.T
    assert f"{training.steps:,} steps of {training.batch}" in row
    assert f"{settings.sampling.samples:,} in {chain} steps" in row


@pytest.mark.parametrize("name", list(shipped_presets()))
def test_the_counts_of_the_costs_are_those_of_the_presets(name: str) -> None:
    settings = resolve(load_grid("table2").cells[-1], load_preset(name), {})
    (row,) = re.findall(rf"^\| `{name}` \|(.*)\|$", DOCS["costs"], re.MULTILINE)
    training, sampling, bound = (_count(text) for text in row.split("|"))
    T, scoring = settings.diffusion.T, settings.scoring
    assert training == pytest.approx(settings.training.steps * settings.training.batch, rel=0.03)
    samples = len(scoring_steps(settings)) * settings.sampling.samples
    assert sampling == pytest.approx(samples * (settings.sampling.steps or T), rel=0.03)
    estimated = scoring.bound_evals is not None and scoring.bound_evals < T
    calls = 2 * scoring.bound_images * (scoring.bound_evals if estimated else T)
    assert bound == pytest.approx(calls + (scoring.terms_images * T if estimated else 0), rel=0.03)


def _count(text: str) -> float:
    number, million = re.match(r"\s*([\d.,]+)( million)?", text).groups()
    return float(number.replace(",", "")) * (1e6 if million else 1)
