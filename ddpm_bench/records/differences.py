"""What tells two configurations apart, in words: one line for every value that differs."""

HASHED = ("resize", "notes", "classes")
"""How images were prepared, and what an extractor tells apart. What came of it is in a hash, which is compared."""


def differences(was: dict, now: dict) -> list[str]:
    """Lines `key: was A, now B` for every leaf in which two nested dictionaries differ; of HASHED only beside other hashes."""
    lines = _differences(was, now, HASHED)
    return _differences(was, now) if any("sha256: " in line for line in lines) else lines


def _differences(was: dict, now: dict, but: tuple[str, ...] = (), prefix: str = "") -> list[str]:
    lines = []
    for key in sorted((set(was) | set(now)).difference(but)):
        a, b = was.get(key), now.get(key)
        if isinstance(a, dict) and isinstance(b, dict):
            lines += _differences(a, b, but, f"{prefix}{key}.")
        elif a != b:
            lines.append(f"  {prefix}{key}: was {a}, now {b}")
    return lines
