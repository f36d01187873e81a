"""Results that a command finds, or leaves, at a URL. Imports no torch."""

import contextlib
import hashlib
from collections.abc import Iterator
from pathlib import Path

from ddpm_bench.cli.options import CACHE
from ddpm_bench.storage.lease import Lease, leased
from ddpm_bench.storage.store import Mirror, Store, fetch, is_url


def here(place: str) -> Path:
    """A folder of records, or one's file; of a URL the copy that this machine has of it, made anew without what training left."""
    if not is_url(place):
        return Path(place)
    folder = copy_of(place, CACHE)
    fetch(Store.at(place), folder, without=("work",))
    return folder


def copy_of(url: str, cache: Path) -> Path:
    """Where this machine has its copy of the results at a URL."""
    name = url.rstrip("/").rpartition("/")[2]
    return cache.expanduser() / "results" / hashlib.sha256(url.rstrip("/").encode()).hexdigest()[:16] / name


@contextlib.contextmanager
def kept_at(place: str, folder: Path) -> Iterator[Lease | None]:
    """The records in `folder` are those at the place, where it is a URL, which is this command's alone while the block runs.

    What jobs leave on their way is fetched and sent by whoever runs them.
    """
    if not is_url(place):
        yield None
        return
    with leased(Store.at(place)) as lease, Mirror(lease.store, folder, lease.check, without=("work",)):
        yield lease
