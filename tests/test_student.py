"""Student's t, against scipy's own distribution."""

import pytest
from scipy import stats

from ddpm_bench.records.student import t_limit, t_tail


@pytest.mark.parametrize("freedom", [1.0, 1.3, 2.0, 2.7, 30.0])
def test_tails_and_limits_are_those_of_the_distribution(freedom: float) -> None:
    for value in (-3.0, 0.0, 0.4, 4.4, 1e3):
        assert t_tail(value, freedom) == pytest.approx(stats.t.sf(value, freedom), rel=1e-12)
    for tail in (1e-6, 0.005, 0.025, 0.5, 0.9):
        assert t_limit(tail, freedom) == pytest.approx(stats.t.isf(tail, freedom), rel=1e-12, abs=1e-12)
        assert t_tail(t_limit(tail, freedom), freedom) == pytest.approx(tail, rel=1e-9)
