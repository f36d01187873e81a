"""The pictures beside records: which file may be opened as one. Pixels are decoded only of what is a picture by its head."""

from pathlib import Path

SIGNATURE = b"\x89PNG\r\n\x1a\n"
MOST_PIXELS = 50_000_000
"""Of a picture; those that are drawn here have a tenth of it."""


def picture_fault(folder: Path, name: str) -> str | None:
    """Why the file `name` of `folder` is not taken for a picture, or None. No link is followed, and only its head is read."""
    path = folder / name
    if Path(name).name != name:
        return "not a plain file name"
    if path.is_symlink():
        return "a link, which is not followed"
    if not path.exists():
        return f"missing in '{folder}'"
    if not path.is_file():
        return "not a file"
    try:
        with path.open("rb") as stream:
            return _fault_of_head(stream.read(24))
    except OSError as error:
        return f"not readable ({error.strerror})"


def _fault_of_head(head: bytes) -> str | None:
    """By the signature of a PNG and the size that its header gives."""
    if not head.startswith(SIGNATURE):
        return "not a PNG"
    width, height = picture_size(head)
    if width * height > MOST_PIXELS:
        return f"of {width:,} x {height:,} pixels, and a picture has at most {MOST_PIXELS:,}"
    return None


def picture_size(content: bytes) -> tuple[int, int]:
    """Width and height, from the first 24 bytes of a PNG."""
    return int.from_bytes(content[16:20], "big"), int.from_bytes(content[20:24], "big")
