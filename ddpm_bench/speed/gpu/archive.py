"""What comes back from a machine that is lent: one file of at most 16 MiB, the most telling first."""

import json
import zipfile
import zlib
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from ddpm_bench.files import replacing

MOST = 16 * 2**20
KINDS = (".json", ".jsonl", ".md", ".csv", ".log", ".png", ".pdf", ".npz")
"""What is taken along, the first first; of each kind the smallest first. Arrays are generated images."""
LEFT_OUT = "left-out.json"
"""In the archive: what it goes without, as numbers of files by the reason."""
ENTRY_BYTES = 256
"""What a file costs in a zip beside its content and twice its name, generously."""


@dataclass(frozen=True)
class Packed:
    """left_out: numbers of files by the reason."""

    path: Path
    files: int
    left_out: dict[str, int]


def pack(folder: Path, path: Path) -> Packed:
    """Write `path`, a zip of what `folder` holds, as far as that is to be taken along and fits."""
    files = [file for file in folder.rglob("*") if file.is_file() and file != path and not file.name.startswith(".")]
    reasons = {file: _why_not(file.relative_to(folder)) for file in files}
    left_out = Counter(why for why in reasons.values() if why)
    wanted = [(KINDS.index(file.suffix), file.stat().st_size, file) for file, why in reasons.items() if not why]
    taken, size = 0, 2 * ENTRY_BYTES
    with (
        replacing(path) as temporary,
        zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive,
    ):
        for _, _, file in sorted(wanted):
            name, content = file.relative_to(folder).as_posix(), file.read_bytes()
            needed = len(zlib.compress(content, 9)) + 2 * len(name.encode()) + ENTRY_BYTES
            if size + needed > MOST:
                left_out[f"more than {MOST >> 20} MiB in all"] += 1
                continue
            archive.writestr(name, content)
            taken, size = taken + 1, size + needed
        archive.writestr(LEFT_OUT, json.dumps(left_out, indent=2))
    return Packed(path, taken, dict(left_out))


def _why_not(file: Path) -> str:
    """Why a file, named from the folder's top, is left out; empty where it is taken."""
    if any(part in ("work", "cache") or part.startswith("step-") or part.endswith(".partial") for part in file.parts):
        return "weights, and what a run goes on from"
    if "-neighbours-" in file.name:
        return "pictures that show training images"
    return "" if file.suffix in KINDS else f"of another kind ({file.suffix or file.name})"
