"""The token rate over five seconds, with the reference's own figures."""

import pytest

from symphony.terminal.throughput import Throughput


@pytest.mark.parametrize(
    ("samples", "now_ms", "total", "rate"),
    [
        ([], 10_000, 0, 0.0),
        ([(9_000, 20)], 10_000, 40, 20.0),
        ([(4_900, 10)], 10_000, 90, 0.0),
        ([(9_500, 10), (9_000, 40), (8_000, 80)], 10_000, 95, 7.5),
    ],
)
def test_the_rate_is_the_growth_over_the_window(
    samples: list[tuple[float, int]], now_ms: float, total: int, rate: float
) -> None:
    assert Throughput(samples).rate(now_ms, total) == rate


def test_the_figure_changes_once_a_second_at_most() -> None:
    throughput = Throughput()
    throughput.rate(1_000, 0)
    assert throughput.rate(2_000, 50) == 50.0
    assert throughput.rate(2_900, 900) == 50.0
    assert throughput.rate(3_000, 900) == 450.0


def test_a_total_that_falls_counts_as_no_growth() -> None:
    assert Throughput([(9_000, 500)]).rate(10_000, 100) == 0.0


def test_samples_do_not_pile_up_within_the_window() -> None:
    throughput = Throughput()
    for millisecond in range(0, 20_000, 5):
        throughput.rate(millisecond, millisecond)
    assert len(throughput._samples) <= 21
