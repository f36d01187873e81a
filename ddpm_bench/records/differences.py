"""What tells two configurations apart, in words: one line for every value that differs."""


def differences(was: dict, now: dict, prefix: str = "") -> list[str]:
    """Lines `key: was A, now B` for every leaf in which two nested dictionaries differ."""
    lines = []
    for key in sorted(set(was) | set(now)):
        a, b = was.get(key), now.get(key)
        if isinstance(a, dict) and isinstance(b, dict):
            lines += differences(a, b, f"{prefix}{key}.")
        elif a != b:
            lines.append(f"  {prefix}{key}: was {a}, now {b}")
    return lines
