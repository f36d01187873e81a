"""This process and another as two ranks, for all tests of the file that imports `two`; and this one as if it were alone."""

import contextlib
from collections.abc import Iterator

import pytest

from ddpm_bench.runtime import orders, ranks


@pytest.fixture(scope="module", autouse=True)
def two() -> Iterator[None]:
    """This process and another, for all tests here."""
    with ranks.started(2):
        yield


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """As if this process were the only one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(orders, "present", None)
        yield
