"""Records from several machines in one folder: each taken over as it is, none overwritten, conflicts refused."""

import shutil
from collections.abc import Sequence
from pathlib import Path

from ddpm_bench.errors import UserError
from ddpm_bench.files import make_folder, replacing, sha256_file
from ddpm_bench.records.conditions import shared
from ddpm_bench.records.differences import differences
from ddpm_bench.records.pictures import picture_fault
from ddpm_bench.records.record import RECORDS, Record, check_found
from ddpm_bench.runtime.observer import say


def merge(out: Path, sources: Sequence[Path]) -> list[Path]:
    """Put the records of the folders `sources` with their pictures into the folder `out`; return the new paths.

    `out` may hold records already. Everything is checked before the first file is written: UserError when two records
    of one cell and seed differ, when records were made under different conditions, or when a picture would replace
    another. A record is there only once its pictures are. The same record from several folders is taken once. A
    picture that a source lacks, or that is none, is said.
    """
    read = RECORDS.all(out)
    held = {path.name: path for path in read}
    chosen: dict[str, Path] = dict(held)
    for source in sources:
        found = RECORDS.all(source)
        check_found(source, found)
        read |= found
        for path in found:
            if path.name in chosen:
                _refuse_conflict(path, read[path], chosen[path.name], read[chosen[path.name]])
            else:
                chosen[path.name] = path
    _refuse_mixed([(path, read[path]) for path in chosen.values()])
    new = [path for name, path in chosen.items() if name not in held]
    pictures = {path: _pictures(path, read[path], out) for path in new}
    make_folder(out)
    for path in new:
        for name in pictures[path]:
            _copy(path.parent / name, out / name)
        _copy(path, out / path.name)
    return [out / path.name for path in new]


def _refuse_conflict(path: Path, record: Record, other_path: Path, other: Record) -> None:
    if lines := differences(other.as_json(), record.as_json()):
        shown = "\n".join(lines[:20]) + (f"\n  … and {len(lines) - 20} more" if len(lines) > 20 else "")
        raise UserError(
            f"'{other_path}' (was) and '{path}' (now) are of the same cell and seed and differ:\n{shown}\n"
            "Nothing was merged. Keep one of them, or measure one with another seed."
        )


def _refuse_mixed(records: Sequence[tuple[Path, Record]]) -> None:
    first_path, first = records[0]
    for path, record in records[1:]:
        was, now = ({"grid": each.grid, **shared(each)} for each in (first, record))
        if lines := differences(was, now):
            raise UserError(
                f"'{first_path}' (was) and '{path}' (now) were made under different conditions:\n"
                + "\n".join(lines)
                + "\nNothing was merged. Merge records of one configuration; `ddpm-bench compare` contrasts two."
            )


def _pictures(path: Path, record: Record, out: Path) -> list[str]:
    """The names of the record's pictures that are to be copied."""
    names = []
    for name in filter(None, (record.sample_grid, *record.pictures.values())):
        source, target = path.parent / name, out / name
        if fault := picture_fault(path.parent, name):
            say(f"'{path}': its picture '{name}' is {fault}; the record is merged without.")
        elif not target.exists():
            names.append(name)
        elif sha256_file(source) != sha256_file(target):
            raise UserError(
                f"'{target}' is there already and is not the picture '{source}'. Nothing was merged; move it away."
            )
    return names


def _copy(source: Path, target: Path) -> None:
    with replacing(target) as temporary:
        shutil.copyfile(source, temporary)
