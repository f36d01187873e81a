"""One owner a place: a lease, for stores that have no locks.

Who owns a place has written `.owner.lease` there and rewrites it every few seconds. One that stays as it is for HELD_S belongs to
a machine that is gone, and is taken over; whose clock is right does not matter. Who loses a lease, having been away for so long, finds
another's there and stops.
"""

import contextlib
import json
import secrets
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from ddpm_bench.errors import UserError
from ddpm_bench.files import OWNER
from ddpm_bench.runtime.interrupt import check_stop
from ddpm_bench.runtime.observer import say
from ddpm_bench.runtime.owner import in_words, ourselves
from ddpm_bench.storage.store import Store, Unreachable

LEASE = f"{OWNER}.lease"
RENEWED_S, HELD_S = 10.0, 60.0
"""How often an owner rewrites it, and how long one must stay as it is before it is taken over."""
SETTLED_S = 2.0
"""After so long two who took over at once both see who wrote last."""


@dataclass(frozen=True)
class Lease:
    """Of `store`, by whoever knows the token: other processes of the same command do."""

    store: Store
    token: str

    def check(self) -> None:
        """UserError where the place is another's by now."""
        found = _note(self.store)
        if found is None or found["token"] != self.token:
            by = f"taken over by {in_words(found)}" if found else "given up"
            raise UserError(
                f"'{self.store.url}' was {by} while this command was not heard of for {HELD_S:.0f} seconds. What was finished until "
                "then is kept there; the same command goes on from it once nobody else is at work."
            )


@contextlib.contextmanager
def leased(store: Store) -> Iterator[Lease]:
    """The place is this command's alone while the block runs. UserError naming who else is at work there.

    Waits for one that is not heard of, HELD_S seconds. Raises Interrupted while it waits.
    """
    lease = Lease(store, secrets.token_hex(8))
    _acquire(lease)
    end = threading.Event()
    renewing = threading.Thread(target=_renew, args=(lease, end), daemon=True)
    renewing.start()
    try:
        yield lease
    finally:
        end.set()
        renewing.join()
        found = _note(store)
        if found and found["token"] == lease.token:
            store.remove(LEASE)


def _acquire(lease: Lease) -> None:
    """Return once the lease is there and ours."""
    first, until = _note(lease.store), time.monotonic() + HELD_S
    if first:
        say(f"'{lease.store.url}' is in use by {in_words(first)}, or was left by it: {HELD_S:.0f} seconds will show.")
    while True:
        found = _note(lease.store)
        if found is None or (time.monotonic() > until and found == first):
            if found:
                lease.store.remove(LEASE)
            with contextlib.suppress(FileExistsError):
                lease.store.write(LEASE, _content(lease, 0), new=True)
                if found:  # of two who removed it at once, the second may have removed the first's
                    time.sleep(SETTLED_S)
                lease.check()
                return
        elif found != first:
            raise UserError(
                f"'{lease.store.url}' is in use by {in_words(found)}. Wait until it has ended, stop it, or choose another place."
            )
        check_stop()
        time.sleep(0.2)


def _renew(lease: Lease, end: threading.Event) -> None:
    """Rewrite it until the block ends or it is another's, which the next `check` finds."""
    count = 0
    while not end.wait(RENEWED_S):
        count += 1
        try:
            lease.check()
            lease.store.write(LEASE, _content(lease, count))
        except Unreachable:
            continue  # it may answer again before the lease is taken over
        except UserError:
            return


def _content(lease: Lease, renewed: int) -> bytes:
    return json.dumps({**ourselves(), "token": lease.token, "renewed": renewed}).encode()


def _note(store: Store) -> dict[str, Any] | None:
    """What the lease says; None where there is none. One that says nothing of the kind is nobody's, and goes the same way."""
    try:
        found = json.loads(store.read(LEASE))
    except FileNotFoundError:
        return None
    except ValueError:
        found = {}
    return found if isinstance(found, dict) and "token" in found else {"token": "", "renewed": 0}
