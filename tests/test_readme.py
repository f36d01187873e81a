"""What the README promises: its Python example runs, its commands exist, and CI types its test command."""

import re
import shlex
import tomllib
from pathlib import Path

import pytest
from conftest import command_of, parsed

from ddpm_bench.config.grid import load_grid, load_preset, resolve, shipped_presets

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_python_example_samples_and_scores_a_users_own_network(capsys):
    (code,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    scope = {}
    exec(compile(code, "README.md", "exec"), scope)
    assert scope["images"].shape == (8, 1, 16, 16)
    assert "bits/dim" in capsys.readouterr().out


def test_ci_types_the_readmes_test_command():
    (command,) = re.findall(r"^(python3 -m venv .*nox -s tests)$", README, re.MULTILINE)
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert command in script.replace(" --quiet", "")


def test_every_command_in_the_readme_is_understood():
    lines = re.findall(r"^ddpm-bench ([^#\n]+)", README, re.MULTILINE)
    assert len(lines) > 8
    for line in lines:
        parsed(shlex.split(line))


def test_every_option_of_a_command_within_a_sentence_of_the_readme_is_there():
    lines = re.findall(r"`ddpm-bench ([^`]* --[^`]*)`", README)
    assert len(lines) > 4
    for line in lines:
        command, rest = command_of(line.split())
        known = {option for each in command.params for option in (*each.opts, *each.secondary_opts)}
        assert {word for word in rest if word.startswith("--")} <= known, line


@pytest.mark.parametrize("name", list(shipped_presets()))
def test_the_table_of_presets_says_what_the_presets_say(name):
    settings = resolve(load_grid("table2").cells[-1], load_preset(name), {})
    (row,) = re.findall(rf"^\| `{name}` \|.*$", README, re.MULTILINE)
    training, chain = settings.training, settings.sampling.steps or settings.diffusion.T
    assert f"{training.steps:,} steps of {training.batch}" in row
    assert f"{settings.sampling.samples:,} in {chain} steps" in row


def test_the_lock_pins_hashes_and_names_no_host():
    lock = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    assert "://" not in lock and "--index" not in lock and "--extra" not in lock
    pinned = re.findall(r"^([a-z0-9-]+)==(\S+)", lock, re.MULTILINE)
    blocks = re.split(r"^(?=[a-z0-9-]+==)", lock, flags=re.MULTILINE)
    assert pinned and all("--hash=sha256:" in block for block in blocks if "==" in block)
    wanted = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    names = {name for name, _ in pinned}
    for requirement in wanted["dependencies"] + wanted["optional-dependencies"]["test"]:
        assert re.match(r"[A-Za-z0-9-]+", requirement)[0] in names
