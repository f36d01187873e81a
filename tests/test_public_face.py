"""`import ddpm_bench`: the documented names, each imported when it is used.

`python tests/test_public_face.py` writes docs/api.md anew.
"""

import inspect
import subprocess
import sys
from pathlib import Path

import ddpm_bench

PAGE = Path(__file__).parent.parent / "docs" / "api.md"
HEAD = """# The public names

`import ddpm_bench` gives these, each imported when it is first used: the import itself loads no torch. What is not here
may move or change between versions. Each docstring says shapes, ranges, units, errors and the source of its equations:
`help(ddpm_bench.sample)`.

"""


def page() -> str:
    """The page, made of the objects themselves."""
    lines = ["| name | where | what |", "| --- | --- | --- |"]
    for name, module in ddpm_bench.PUBLIC.items():
        first = (
            (inspect.getdoc(getattr(ddpm_bench, name)) or "").split("\n\n")[0].replace("\n", " ").replace("|", "\\|")
        )
        lines.append(f"| `{name}` | `ddpm_bench.{module}` | {first} |")
    return HEAD + "\n".join(lines) + "\n"


def test_the_page_lists_every_public_name_with_what_it_is() -> None:
    assert PAGE.read_text(encoding="utf-8") == page()  # written anew by: python tests/test_public_face.py


def test_every_public_name_is_there_and_says_what_it_is() -> None:
    for name in ddpm_bench.PUBLIC:
        found = getattr(ddpm_bench, name)
        assert found.__name__ == name and len(inspect.getdoc(found) or "") > 20, name
    assert set(ddpm_bench.PUBLIC) <= set(dir(ddpm_bench)) and set(ddpm_bench.PUBLIC) < set(ddpm_bench.__all__)


def test_importing_the_package_loads_no_torch_and_an_unknown_name_is_refused() -> None:
    program = """
import sys, ddpm_bench
assert "torch" not in sys.modules
ddpm_bench.CellSettings, ddpm_bench.read_record, ddpm_bench.load_grid
assert "torch" not in sys.modules
ddpm_bench.sample
assert "torch" in sys.modules
try:
    ddpm_bench.sampel
except AttributeError as error:
    assert "sampel" in str(error)
else:
    raise AssertionError("an unknown name was found")
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
