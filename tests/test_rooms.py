"""The house as docs/design.md draws it: nothing lower imports anything higher, and no class name means two things."""

import ast
import re
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "ddpm_bench"
DESIGN = (ROOT / "docs" / "design.md").read_text(encoding="utf-8")
DRAWN = re.findall(r"^      (\w+)/  ", DESIGN[DESIGN.index("from top to bottom") :], re.MULTILINE)
"""The rooms, the highest first."""


def imports(path: Path) -> set[str]:
    """The rooms that a module imports from as it is loaded."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return {
        node.module.split(".")[1]
        for node in tree.body
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("ddpm_bench.")
    }


def test_the_page_draws_every_room() -> None:
    assert sorted(DRAWN) == sorted(path.name for path in PACKAGE.iterdir() if (path / "__init__.py").exists())


def test_nothing_lower_imports_anything_higher() -> None:
    looked_at = 0
    for number, room in enumerate(DRAWN):
        for path in (PACKAGE / room).rglob("*.py"):
            higher = imports(path) & set(DRAWN[:number])
            assert not higher, f"{path.relative_to(ROOT)} imports from {', '.join(higher)}"
            looked_at += 1
    assert looked_at > 100


def test_no_class_name_stands_twice() -> None:
    names = Counter(
        node.name
        for path in PACKAGE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ClassDef)
    )
    assert [name for name, count in names.items() if count > 1] == []
