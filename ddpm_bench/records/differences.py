"""What tells two configurations apart, in words: one line for every value that differs."""

PREPARING = ("resize", "notes")
"""How images were prepared. What came of it is in the hash of their pixels, which stands beside and is compared."""


def differences(was: dict, now: dict, prefix: str = "") -> list[str]:
    """Lines `key: was A, now B` for every leaf in which two nested dictionaries differ, but those of PREPARING."""
    lines = []
    for key in sorted((set(was) | set(now)).difference(PREPARING)):
        a, b = was.get(key), now.get(key)
        if isinstance(a, dict) and isinstance(b, dict):
            lines += differences(a, b, f"{prefix}{key}.")
        elif a != b:
            lines.append(f"  {prefix}{key}: was {a}, now {b}")
    return lines
