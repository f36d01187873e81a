"""Results that a command finds, or leaves, at a URL. Imports no torch."""

import hashlib
from pathlib import Path

from ddpm_bench.cli.options import CACHE
from ddpm_bench.storage.store import Store, fetch, is_url


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
