"""JSON and TOML gone wrong, and the values that are put into them."""

import json
from random import Random
from typing import Any

DEEP = 200_000
HUGE = (0, 1, -1, 2, 255, 2**15, 2**16, 2**31 - 1, 2**31, 2**32, 2**40, 2**62, 2**63 - 1, 2**63, 2**64, 10**30)
WORDS = (
    "",
    "x",
    "ema",
    "raw",
    "linear",
    "cosine",
    "learned-range",
    "eps",
    "L",
    "../x",
    "a\nb",
    "\x1b[31m",
    "é",
    "x" * 999,
)
VALUES: tuple[Any, ...] = (
    *HUGE, *WORDS, None, True, False, 0.5, -0.0, 1e-300, 1e308, float("nan"), float("inf"), [], {}, [[]], [None], [0], ["x"],
    {"x": 1}, [1, 2, 3], [2**62] * 3, [1] * 200, "\ud800",
)  # fmt: skip


def changed_value(random: Random, value: Any) -> Any:
    """JSON values with one of them replaced, removed, doubled or renamed, at any depth."""
    if isinstance(value, dict) and value and random.randrange(6):
        key = random.choice(sorted(value))
        what = random.randrange(8)
        if what == 0:
            return {k: v for k, v in value.items() if k != key}
        if what == 1:
            return value | {random.choice((*WORDS, "\ud800")): value[key]}
        return value | {key: changed_value(random, value[key])}
    if isinstance(value, list) and value and random.randrange(6):
        at = random.randrange(len(value))
        what = random.randrange(8)
        if what == 0:
            return value[:at] + value[at + 1 :]
        if what == 1:
            return value + value[at : at + 1] * random.choice((1, 2, 300))
        return [*value[:at], changed_value(random, value[at]), *value[at + 1 :]]
    if isinstance(value, int) and not isinstance(value, bool) and random.randrange(2):
        return random.choice((value + 1, value - 1, 2 * value, -value, 10**9, value * 1.5, float(value), str(value)))
    return random.choice(VALUES)


def changed_json(random: Random, content: bytes) -> bytes:
    what = random.randrange(12)
    if what == 0:
        return nested(random)
    if what == 1:
        return content.replace(b": ", b": " + b"9" * random.choice((20, 400, 5000)) + b', "x": ', 1)
    return json.dumps(changed_value(random, json.loads(content))).encode()


def nested(random: Random) -> bytes:
    depth = random.choice((100, 900, DEEP))
    opening, closing = random.choice(((b"[", b"]"), (b'{"a":', b"}")))
    return opening * depth + b"1" + closing * random.choice((depth, 0))


def changed_toml(random: Random, content: bytes) -> bytes:
    """A line removed, doubled, or with another value or key."""
    lines = content.decode().splitlines()
    at = random.randrange(len(lines))
    what = random.randrange(7)
    if what == 0:
        del lines[at]
    elif what == 1:
        lines.insert(at, random.choice(lines))
    elif what == 2:
        return nested_toml(random, lines)
    else:
        settings = [i for i, line in enumerate(lines) if "=" in line]
        at = random.choice(settings)
        key, _, value = lines[at].partition("=")
        if random.randrange(4):
            value = toml_value(random)
        else:
            key = random.choice(("x", "a.b", "summary", '""', "name", "kind", "steps", '"\\u0000"', "network.kind"))
        lines[at] = f"{key} = {value}"
    return "\n".join(lines).encode()


def nested_toml(random: Random, lines: list[str]) -> bytes:
    depth = random.choice((100, 900, DEEP))
    way = random.choice(
        ("[" * depth + "]" * depth, ".".join("a" * min(depth, 20_000)) + " = 1", "{a=" * depth + "}" * depth)
    )
    text = way if "=" in way[:2] else f"x = {way}"
    return "\n".join([text, *lines]).encode()


def toml_value(random: Random) -> str:
    value = random.choice(VALUES)
    other = random.choice(
        ("inf", "-inf", "nan", "1979-05-27", "07:32:00", "'''x'''", "0x" + "f" * 5000, "[" * DEEP, "{}")
    )
    if value is None or isinstance(value, (dict, float)) or not random.randrange(4):
        return other
    return json.dumps(value, ensure_ascii=not random.randrange(2)) if value != "\ud800" else '"\\ud800"'
