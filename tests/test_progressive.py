"""Progressive coding: rate and error after every reverse step, in closed form, and the table and figure of them."""

import math
from pathlib import Path

import pytest
from matplotlib.figure import Figure
from PIL import Image
from records import make_bound
from rich.console import Console

from ddpm_bench.config.preset import load_preset, resolve
from ddpm_bench.config.shipped import load_coding, load_grid
from ddpm_bench.records.likelihoods import BoundTerms
from ddpm_bench.report.figures.progressive_coding import draw_progressive, plot_progressive
from ddpm_bench.report.progressive_coding import (
    coded,
    has_progressive,
    lines,
    split_in_words,
)
from ddpm_bench.report.sections.bounds import code_table
from ddpm_bench.report.writers.markdown import to_markdown
from ddpm_bench.report.writers.terminal_tables import code_at_terminal

TABLE_4 = load_coding("ddpm-table4")


def bound(T: int = 4, shift: float = 0.0) -> BoundTerms:
    """L_{t-1} = 10^-(t-1) and mse_t = (t/10)^2, so that every digit of a rate says which terms are in it."""
    terms = [10.0 ** -(t - 1) + shift for t in range(1, T + 1)]
    return BoundTerms(
        split="test", images=2, evals=T, total=5.0 + sum(terms), standard_error=0.1, prior=5.0,
        middle=sum(terms[1:]), first=terms[0], terms=tuple(terms), mse=tuple((t / 10) ** 2 for t in range(1, T + 1)),
    )  # fmt: skip


def full(cell: str = "eps-mse-fixed") -> BoundTerms:
    [row] = load_grid("table2").select([cell])
    return make_bound(cell, 0, "test", resolve(row, load_preset("paper"), {}))


def test_after_r_steps_the_rate_holds_the_terms_above_t_and_the_error_is_that_of_t() -> None:
    points = coded("x", [bound()]).points
    assert [p.steps for p in points] == [1, 2, 3, 4]
    assert [p.rate for p in points] == pytest.approx([5.0, 5.001, 5.011, 5.111])  # L_T, + L_3, + L_2, + L_1; never L_0
    assert [p.rmse for p in points] == pytest.approx([127.5 * t / 10 for t in (4, 3, 2, 1)])


def test_rate_and_distortion_add_up_to_the_bound() -> None:
    code = coded("x", [bound()])
    assert (code.rate, code.distortion) == pytest.approx((5.111, 1.0))
    assert code.rate == pytest.approx(code.points[-1].rate)
    assert code.rate + code.distortion == pytest.approx(bound().total)


def test_several_seeds_give_the_mean() -> None:
    code = coded("x", [bound(), bound(shift=0.3)])
    assert code.points[1].rate == pytest.approx((5.001 + 5.301) / 2)
    assert code.distortion == pytest.approx(1.15)


@pytest.mark.parametrize("lacking", [{"mse": ()}, {"terms": ()}, {"mse": (0.1,)}])
def test_a_bound_without_single_terms_and_errors_has_no_code(lacking: dict) -> None:
    bare = bound().model_copy(update=lacking)
    assert has_progressive(bound()) and not has_progressive(bare)
    with pytest.raises(ValueError, match="every t"):
        coded("x", [bare])


def test_the_published_code_is_the_papers_table_4() -> None:
    assert (TABLE_4.T, TABLE_4.rate, TABLE_4.distortion) == (1000, 1.78, 1.97)
    points = {p.steps: (p.rate, p.rmse) for p in TABLE_4.points}
    assert points == {
        1000: (1.77581, 0.95136), 900: (0.11994, 12.02277), 800: (0.05415, 18.47482), 700: (0.02866, 24.43656),
        600: (0.01507, 30.80948), 500: (0.00716, 38.03236), 400: (0.00282, 46.12765), 300: (0.00081, 54.18826),
        200: (0.00013, 60.97170), 100: (0.00000, 67.60125),
    }  # fmt: skip
    assert "Table 4" in TABLE_4.source


def test_the_table_has_the_papers_ten_steps_with_the_published_ones_beside_them() -> None:
    table = lines(coded("x", [full()]), TABLE_4)
    assert [line[0] for line in table] == ["1,000", *(f"{r}" for r in range(900, 0, -100))]
    assert table[0][3:] == ["1,000", "1.77581", "0.95136"] and table[-1][3:] == ["100", "0.00000", "67.60125"]
    assert table[1][2] == f"{127.5 * math.sqrt(0.2) * 101 / 1000:.5f}"  # r = 900 is t = 101


@pytest.mark.parametrize(("T", "steps"), [(4, [4, 3, 2, 1]), (25, [25, 22, 20, 18, 15, 12, 10, 8, 5, 2])])
def test_other_chains_have_the_same_shares_of_their_steps(T: int, steps: list[int]) -> None:
    table = lines(coded("x", [bound(T)]), TABLE_4)
    assert [int(line[0]) for line in table] == steps
    for line in table:
        assert abs(int(line[3].replace(",", "")) * T - int(line[0]) * 1000) <= 1000 / 2


def test_a_step_that_nothing_was_published_for_has_nothing_beside_it() -> None:
    few = TABLE_4.model_copy(update={"points": TABLE_4.points[-1:]})
    assert [line[3:] for line in lines(coded("x", [full()]), few)[:2]] == [["1,000", "1.77581", "0.95136"], [""] * 3]


def test_markdown_and_terminal_show_the_same_numbers() -> None:
    code = coded("||eps - eps_theta||^2 (L_simple)", [full()])
    text = to_markdown([code_table(code, TABLE_4)]).splitlines()
    assert len(text) == 12 and {line.count("|") for line in text} == {7}
    console = Console(width=110, force_terminal=False)
    with console.capture() as capture:
        console.print(code_at_terminal(code, TABLE_4))
    shown = capture.get()
    for line in lines(code, TABLE_4):
        assert all(number in shown for number in line)
        assert f"| {' | '.join(line)} |" in text
    assert "‖ε − ε_θ‖² (L_simple)" in shown and "published: rate 1.78, distortion 1.97" in " ".join(shown.split())
    assert "published" not in to_markdown([code_table(code)]) and "published" not in split_in_words(code)


def numbers(axes: object) -> list[tuple[list[float], list[float]]]:
    return [(list(map(float, line.get_xdata())), list(map(float, line.get_ydata()))) for line in axes.lines]


def test_the_figure_shows_error_and_rate_by_step_and_error_by_rate() -> None:
    code = coded("x", [bound()])
    (errors, rates, both), _ = draw_progressive(Figure(), [code])
    steps, rate, rmse = map(list, zip(*code.points, strict=True))
    assert (numbers(errors), numbers(rates), numbers(both)) == ([(steps, rmse)], [(steps, rate)], [(rate, rmse)])


def test_published_points_share_the_panels_only_where_they_are_comparable() -> None:
    codes = [coded(name, [full()]) for name in "ab"]
    measured, published = draw_progressive(Figure(), codes, TABLE_4)
    assert not set(measured) & set(published)
    assert [len(axes.lines) for axes in (*measured, *published)] == [2, 2, 2, 1, 1, 1]
    measured, published = draw_progressive(Figure(), codes, TABLE_4, comparable=True)
    assert measured == published and [len(axes.lines) for axes in measured] == [3, 3, 3]
    styles = [(line.get_color(), line.get_linestyle(), line.get_marker()) for line in measured[0].lines]
    assert len(set(styles)) == 3


def test_the_figure_is_saved_as_png_and_pdf(tmp_path: Path) -> None:
    plot_progressive(tmp_path / "p.png", [coded("$x_", [full()])], TABLE_4)
    with Image.open(tmp_path / "p.png") as image:
        image.load()
    assert (tmp_path / "p.pdf").read_bytes().startswith(b"%PDF")
