"""docs/cli.md is what the command line itself says of its commands.

`python tests/test_cli_page.py` writes it anew.
"""

import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, get_args, get_origin, get_type_hints

import typer

from ddpm_bench import cli

PAGE = Path(__file__).parent.parent / "docs" / "cli.md"
HEAD = """# The command line

`--help` after a command says the same. Exit codes: 0 done (that a cell diverged or failed to learn is a result), 1 a cell ended in an
error, a comparison did not hold, the disk or the memory is full, or one of several ranks is lost, 2 a mistake in what was given,
130 interrupted.

"""
DEFAULT = re.compile(r"\s*\[default: (.*)\]")
NOTHING = ("", "False", "None")
"""Defaults that say nothing."""
WORDS = {int: "N", float: "X", Path: "PATH"}


def commands(command, name: str) -> Iterator[tuple[str, object]]:
    """Every command that does something, with the words that call it."""
    if not hasattr(command, "commands"):
        yield name, command
        return
    for word, below in command.commands.items():
        yield from commands(below, f"{name} {word}")


def page() -> str:
    found = list(commands(typer.main.get_command(cli.app), "ddpm-bench"))
    listed = [f"- [`{name}`](#{name.replace(' ', '-')}): {_paragraphs(command)[0]}" for name, command in found]
    return HEAD + "\n".join(listed) + "\n\n" + "\n".join(_section(name, command) for name, command in found)


def _section(name: str, command) -> str:
    told, example = [], ""
    for paragraph in _paragraphs(command):
        if paragraph.startswith("Example: "):
            example = "```sh\n" + "\n".join(paragraph.split("`")[1::2]) + "\n```\n\n"
        else:
            told.append(paragraph + "\n")
    kinds = get_type_hints(inspect.unwrap(command.callback))
    lines = "".join(_line(one, kinds[one.name]) for one in command.params if one.name in kinds)
    return f"## {name}\n\n" + "\n".join(told) + f"\n{example}| option | what | default |\n| --- | --- | --- |\n{lines}"


def _paragraphs(command) -> list[str]:
    return [" ".join(paragraph.split()) for paragraph in (command.help or "").split("\n\n")]


def _line(parameter, annotation: object) -> str:
    """A line of the table. A default that is told within the words moves to its column."""
    words, default = getattr(parameter, "help", None) or "", parameter.default
    if isinstance(default, Path) and default.is_relative_to(Path.home()):
        default = f"~/{default.relative_to(Path.home()).as_posix()}"
    told = "required" if parameter.required else "" if str(default) in NOTHING else f"`{default}`"
    if within := DEFAULT.search(words):
        words, told = DEFAULT.sub("", words), within[1]
    return (
        "| "
        + " | ".join(
            text.replace("|", "\\|").replace("<", "\\<") for text in (_name(parameter, annotation), words, told)
        )
        + " |\n"
    )


def _name(parameter, annotation: object) -> str:
    if parameter.param_type_name == "argument":
        return f"`{parameter.metavar or parameter.name.upper()}`"
    names = "/".join((*parameter.opts, *parameter.secondary_opts))
    return f"`{names}`" if parameter.is_flag else f"`{names} {_value(annotation)}`"


def _value(annotation: object) -> str:
    """What stands for the value of an option: its choices, or what it is."""
    kinds = [annotation, *get_args(annotation)]
    for kind in kinds:
        if get_origin(kind) is Literal:
            return "|".join(get_args(kind))
    return next((word for kind, word in WORDS.items() if kind in kinds), "TEXT")


def test_the_page_says_what_the_command_line_says() -> None:
    assert PAGE.read_text(encoding="utf-8") == page()  # written anew by: python tests/test_cli_page.py


def test_every_command_says_what_it_does_and_gives_an_example() -> None:
    for name, command in commands(typer.main.get_command(cli.app), "ddpm-bench"):
        assert any(paragraph.startswith("Example: `ddpm-bench ") for paragraph in _paragraphs(command)), name


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
