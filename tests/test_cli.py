"""The command line as a user meets it: help, mistakes, exit codes, results on stdout and progress on stderr."""

import errno
import json
import signal
import subprocess
import sys

import pytest

from ddpm_bench import __version__
from ddpm_bench.experiment import cell as run
from ddpm_bench.records.record import read_records

COMMANDS = [
    "ablate", "train", "sample", "evaluate", "nll", "selftest", "import", "report", "compare", "merge", "reproduce", "grids",
    "published", "speed", "precision", "extractor train", "autoencoder train", "autoencoder add",
]  # fmt: skip


def test_help_needs_no_torch_and_answers_at_once():
    code = (
        "import sys; sys.argv = ['ddpm-bench', '--help']\n"
        "from ddpm_bench.cli import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "sys.exit(any(name in sys.modules for name in ('torch', 'pydantic', 'pandas', 'matplotlib')))"
    )
    assert subprocess.run([sys.executable, "-c", code], stdout=subprocess.DEVNULL).returncode == 0


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself_with_an_example(call, command):
    answer = call(*command.split(), "--help")
    assert answer.code == 0
    assert f"Example: ddpm-bench {command}" in " ".join(answer.out.split())


def test_version(call):
    assert call("--version").out == f"ddpm-bench {__version__}\n"


def test_grids_lists_cells_and_presets_for_people_and_machines(call):
    assert "eps-mse-fixed" in call("grids").out
    listed = json.loads(call("grids", "--json").out)
    assert [len(grid["cells"]) for grid in listed["grids"] if grid["name"] == "table2"] == [6]
    assert {"smoke", "quick", "cpu", "short", "paper"} <= {preset["name"] for preset in listed["presets"]}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["ablate", "--grid", "tabel2"], "did you mean 'table2'"),
        (["ablate", "--preset", "quik"], "did you mean 'quick'"),
        (["ablate", "--cells", "eps-mse"], "did you mean 'eps-mse-fixed'"),
        (["ablate", "--set", "training.stepz=1"], "did you mean 'steps'"),
        (["ablate", "--set", "diffusion.schedule=liner"], "did you mean 'linear'"),
        (["ablate", "--seeds", "one"], "--seeds 'one'"),
        (["ablate", "--device", "cuda"], "--device cpu"),
        (["ablate", "--device", "gpu"], "no device 'gpu'"),
        (["ablate", "--preset", "smoke", "--data", "folder:/no/such/place"], "/no/such/place"),
        (["ablate", "--preset", "smoke", "--data", "embeded"], "did you mean 'embedded'"),
        (["ablate", "--preset", "smoke", "--extractor", "/no/such/extractor.safetensors"], "/no/such/extractor"),
        (["report", "--results", "/no/such/results"], "/no/such/results"),
        (["sample", "--ckpt", "/no/such/checkpoint", "--out", "x.npz"], "/no/such/checkpoint"),
        (["sample", "--ckpt", "x", "--out", "x.png", "--interpolate", "3"], "requires 2 arguments"),
        (["evaluate", "--samples", "/no/such/images"], "/no/such/images"),
        (["evaluate", "--ckpt", "/no/such/checkpoint"], "/no/such/checkpoint"),
        (["ablate", "--no-such-option"], "No such option"),
    ],
)
def test_a_mistake_is_one_message_and_exit_2(call, monkeypatch, tmp_path, arguments, said):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    answer = call(*arguments)
    assert answer.code == 2
    assert said in answer.err and "Traceback" not in answer.err
    assert list(tmp_path.iterdir()) == []


def test_an_unwritable_results_folder_is_said_before_training(call, tmp_path):
    (tmp_path / "file").write_text("")
    answer = call("ablate", "--preset", "smoke", "--results", tmp_path / "file" / "results")
    assert answer.code == 2 and "Choose another folder" in answer.err


def test_a_dry_run_lists_cost_and_disk_and_writes_nothing(call, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    command = ("ablate", "--preset", "smoke", "--seeds", "0,1", "--workers", "2", "--device", "cpu", "--dry-run")
    grid = json.loads(call(*command, "--json").out)
    assert len(grid["cells"]) == 12 and grid["workers"] == 2 and "Not counted" in grid["not_counted"]
    assert all(cost["hours"] > 0 and cost["disk_bytes"] > 4 * cost["parameters"] for cost in grid["cells"])
    assert grid["hours_in_a_row"] == pytest.approx(sum(cost["hours"] for cost in grid["cells"]))
    assert list(tmp_path.iterdir()) == []
    said = call(*command).out
    assert "12 cells, 2 at a time, " in said and " for the grid" in said and "Not counted: start, scoring" in said


def test_a_dry_run_takes_no_options_of_a_measurement(call):
    refused = call("ablate", "--preset", "smoke", "--dry-run", "--extractor", "nope")
    assert refused.code == 2 and "--extractor does not go with --dry-run" in refused.err


def test_the_steps_of_a_strided_chain_are_said_before_a_grid_and_what_cannot_be_refused(call):
    command = ("ablate", "--preset", "smoke", "--device", "cpu", "--dry-run", "--cells", "eps-mse-fixed", "--set")
    said = call(*command, "sampling.steps=4", "--set", "sampling.spacing=openai").err
    assert said.count("The chain visits 4 of 10 steps, spacing 'openai', counted from 1: 1, 4, 7, 10") == 1
    refused = call(*command, "sampling.steps=61", "--set", "sampling.spacing=trailing", "--set", "diffusion.T=1000")
    assert refused.code == 2 and "'trailing' does not exist for 61 of 1000 steps" in refused.err


def test_a_run_leaves_records_and_no_half_written_files(small_run):
    assert {record.cell for record in read_records(small_run.results)} == {"eps-mse-fixed", "mu-L-learned"}
    assert not [path for path in small_run.results.rglob(".*")]


def test_the_same_command_again_measures_nothing_and_prints_the_records(small_run, call, monkeypatch):
    monkeypatch.setattr("ddpm_bench.experiment.launchers.launcher.run_cell", lambda *_: pytest.fail("measured again"))
    answer = call(*small_run.arguments, "--json")
    assert answer.code == 0 and "measured already" in answer.err
    assert [record["cell"] for record in json.loads(answer.out)] == ["eps-mse-fixed", "mu-L-learned"]


def test_results_of_another_configuration_are_refused_with_the_difference(small_run, call):
    before = {path: path.read_bytes() for path in small_run.results.glob("*.json")}
    answer = call(*small_run.arguments, "--set", "training.steps=41")
    assert answer.code == 2
    assert "training.steps: was 40, now 41" in answer.err and "--results" in answer.err
    assert before == {path: path.read_bytes() for path in small_run.results.glob("*.json")}


def test_the_report_of_a_run_is_the_one_that_its_records_alone_give(small_run, call, tmp_path):
    arguments = [argument for argument in small_run.arguments if argument != "--no-report"]
    commands = {"run": arguments, "records": ["report", "--results", small_run.results]}
    for name, command in commands.items():
        answer = call(*command, "--reports", tmp_path / name)
        assert answer.code == 0 and "ε prediction" in answer.out
        assert {"report.md", "table.tex", "table.csv"} <= {path.name for path in (tmp_path / name).iterdir()}
    of_run, of_records = ((tmp_path / name / "report.md").read_text() for name in commands)
    assert of_run == of_records


def test_fresh_sets_the_old_records_aside(small_run, call, tmp_path):
    import shutil

    shutil.copytree(small_run.results, tmp_path / "results")
    old = (tmp_path / "results" / "eps-mse-fixed-seed0.json").read_bytes()
    arguments = [str(tmp_path / "results") if a == str(small_run.results) else a for a in small_run.arguments]
    arguments[arguments.index("--cells") + 1] = "eps-mse-fixed"
    answer = call(*arguments, "--fresh")
    assert answer.code == 0
    (kept,) = (tmp_path / "results").glob("before-*/eps-mse-fixed-seed0.json")
    assert kept.read_bytes() == old
    was, now = json.loads(old), json.loads((tmp_path / "results" / "eps-mse-fixed-seed0.json").read_text())
    assert was["checkpoints"] == now["checkpoints"] and was["training_log"] == now["training_log"]


def test_a_cell_that_fails_is_reported_and_the_grid_goes_on(small_run, call, monkeypatch, tmp_path):
    real = run.run_cell

    def fails_once(job, bench):
        if job.cell.name == "mu-L-learned":
            raise RuntimeError("out of memory")
        return real(job, bench)

    monkeypatch.setattr("ddpm_bench.experiment.launchers.launcher.run_cell", fails_once)
    arguments = [str(tmp_path / "results") if a == str(small_run.results) else a for a in small_run.arguments]
    answer = call(*arguments)
    assert answer.code == 1
    assert "mu-L-learned" in answer.err and "out of memory" in answer.err
    assert [record.cell for record in read_records(tmp_path / "results")] == ["eps-mse-fixed"]


def test_a_full_disk_is_said_with_exit_1(small_run, call, monkeypatch, tmp_path):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("ddpm_bench.experiment.launchers.launcher.run_cell", full)
    arguments = [str(tmp_path / "results") if a == str(small_run.results) else a for a in small_run.arguments]
    answer = call(*arguments)
    assert answer.code == 1
    assert "No space left" in answer.err and "Make room" in answer.err and "Traceback" not in answer.err


def test_compare_says_what_it_takes_to_test_whether_a_run_repeats_another(small_run, call):
    answer = call("compare", small_run.results, small_run.results)
    assert answer.code == 0 and "no spread" in " ".join(answer.out.split())


ENDING = """
import atexit, sys, time
atexit.register(lambda: (print("ending", flush=True), time.sleep(1)))  # runs after what main has registered
sys.argv = ["ddpm-bench", "published", "--json"]
from ddpm_bench.cli import main
main()
"""


def test_a_signal_after_the_last_line_changes_no_exit_code():
    process = subprocess.Popen([sys.executable, "-c", ENDING], stdout=subprocess.PIPE, text=True)
    while process.stdout.readline() != "ending\n":
        assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    process.communicate()
    assert process.returncode == 0
