"""Numbers of reference images, kept in the runtime's cache under a hash of all that they depend on."""

import hashlib
import json
import math
from collections.abc import Callable
from typing import Any

from ddpm_bench.runtime.owner import owned
from ddpm_bench.runtime.runtime import Runtime
from ddpm_bench.sealed import read_sealed, write_sealed


def cached(kind: str, identity: dict[str, Any], runtime: Runtime, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What `make` gives, JSON values; read where it lies in the folder `kind` of the cache. `identity`: what it depends on."""
    if runtime.cache is None:
        return make()
    key = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()
    kept = runtime.cache / kind / f"{key}.json"
    with owned(kept.parent, math.inf, key):  # of two processes that want the same, one makes them
        found = read_sealed(kept)
        if found is None:
            found = make()
            write_sealed(kept, found)
        return found
