"""Digits follow the error: two significant ones of it, and the number has as many decimals."""

import math

import pytest

from ddpm_bench.config.metrics import METRICS

SCORE, BOUND, PRECISION = METRICS["is_mean"], METRICS["bound_test_bits_per_dim"], METRICS["precision"]


@pytest.mark.parametrize(
    ("value", "error", "text"),
    [
        (12.3123, 0.712887, "12.31 ± 0.71"),
        (4.181, 0.0056, "4.1810 ± 0.0056"),
        (15.43, 1.8, "15.4 ± 1.8"),
        (23.5, 12.4, "24 ± 12"),
        (2345.6, 123.4, "2346 ± 123"),
        (2.6, 0.0996, "2.60 ± 0.10"),  # not ± 0.100: what counts is the error as it is written
        (2.6, 0.996, "2.6 ± 1.0"),
        (-0.001, 0.2, "0.00 ± 0.20"),
    ],
)
def test_a_value_has_the_decimals_of_two_digits_of_its_error(value: float, error: float, text: str) -> None:
    assert SCORE.with_error(value, error) == text == BOUND.with_error(value, error)


@pytest.mark.parametrize("error", [0.0, math.inf, math.nan])
def test_without_an_error_the_metrics_own_digits_stand(error: float) -> None:
    assert SCORE.with_error(2.6, error).startswith("2.60 ± ")
    assert BOUND.with_error(2.6, error).startswith("2.600 ± ")


def test_an_error_of_rounding_alone_makes_no_row_of_digits() -> None:
    assert SCORE.with_error(2.6, 1e-300) == "2.60000 ± 0.00000"


def test_an_interval_has_the_decimals_of_half_its_width() -> None:
    assert SCORE.with_interval(23.661, 22.918, 24.331) == "23.66 [22.92, 24.33]"
    assert BOUND.with_interval(29.964, 29.65, 30.26) == "29.96 [29.65, 30.26]"
    assert BOUND.with_interval(4.311, 4.274, 4.345) == "4.311 [4.274, 4.345]"
    assert PRECISION.with_interval(0.5, 0.5, 0.5) == "0.500 [0.500, 0.500]"
