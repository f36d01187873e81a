"""Text from elsewhere: which characters it may hold, and how one that it may not hold is shown. The one place for both."""

import unicodedata
from collections.abc import Mapping
from typing import Any

LONGEST = 10_000
"""Characters of one text in a record, a grid or a setting."""
DEEPEST = 20
"""Lists and tables inside each other."""
_NUMBERS = frozenset((float, int, bool, type(None)))
_JOINERS = "\u200c\u200d"
"""They spell words in some scripts, and neither hide nor move anything."""
_KINDS = {
    "Cc": "a control character", "Cf": "a character that hides or reorders text", "Cs": "half of a character",
    "Zl": "a line separator", "Zp": "a paragraph separator",
}  # fmt: skip


def check_plain(value: Any, depth: int = 0) -> None:
    """ValueError for a text, or one inside lists and tables, that could pass for something else where it is shown."""
    if type(value) in _NUMBERS:  # nearly all of what a record holds
        return
    if depth > DEEPEST:
        raise ValueError(f"lists and tables are more than {DEEPEST} deep inside each other")
    if isinstance(value, str):
        _check_text(value)
    elif isinstance(value, list | tuple):
        for held in value:
            if type(held) not in _NUMBERS:
                check_plain(held, depth + 1)
    elif isinstance(value, Mapping):
        for name, held in value.items():
            check_plain(name, depth + 1)
            check_plain(held, depth + 1)


def _check_text(text: str) -> None:
    if len(text) > LONGEST:
        raise ValueError(f"a text of {len(text):,} characters is too long; at most {LONGEST:,}")
    if not text.isprintable():
        for character in text:
            if kind := _kind(character):
                raise ValueError(
                    f"holds {kind}, U+{ord(character):04X}; a text is one line of characters that are seen"
                )


def _kind(character: str) -> str:
    return "" if character in _JOINERS else _KINDS.get(unicodedata.category(character), "")


def visible(text: str) -> str:
    """The text with what a terminal would obey, or show in another order, spelled out; line breaks and tabs stay."""
    if text.isprintable():
        return text
    return "".join(ascii(c)[1:-1] if c not in "\n\t" and _kind(c) else c for c in text)


def brief(value: object, most: int = 80) -> str:
    """A value in a message: as Python spells it, the end of a long one left out."""
    try:
        spelled = ascii(value) if isinstance(value, str) and not value.isprintable() else repr(value)
    except ValueError:  # Python writes no number of more than 4,300 digits
        return "a number of thousands of digits"
    return spelled if len(spelled) <= most else f"{spelled[:most]}…"
