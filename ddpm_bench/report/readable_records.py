"""The records of a folder that can be read: a broken one, or one of a newer schema, is said and left out."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from ddpm_bench.errors import UserError
from ddpm_bench.records.record import RECORDS, Record, check_found
from ddpm_bench.runtime.observer import say


def readable_records(folder: Path) -> list[Record]:
    """In order of file name. UserError when there is no folder, no record in it, or none that can be read."""
    faults: list[UserError] = []
    records = RECORDS.all(folder, faults.append)
    if faults and not records:
        raise UserError("\n".join(["None of the records can be read.", *map(str, faults)]))
    check_found(folder, records)
    for fault in faults:
        say(f"Left out of the report: {fault}")
    return list(records.values())


def usual_grid(records: Sequence[Record]) -> str:
    """The grid that most records are of; of equally many the first."""
    return Counter(record.grid for record in records).most_common(1)[0][0]
