"""The model of a step on many GPUs, solved by hand."""

from __future__ import annotations

import pytest

from sri_cli.benchmarks.scaling import (
    NETWORK,
    NVLINK,
    Curve,
    Link,
    Terms,
    link_between,
    ring_seconds,
    scaling_table,
    share_of,
)

LINK = Link("by hand", bandwidth=1e9, latency=1e-3, source="")


def test_a_ring_by_hand() -> None:
    assert ring_seconds(1, 1e9, LINK) == 0
    # 6 hops, each of a quarter of 2 GB at 1 GB/s and a millisecond.
    assert ring_seconds(4, 2e9, LINK) == pytest.approx(6 * (0.5 + 0.001))


def test_the_slowest_link_counts_and_given_figures_stand_in() -> None:
    assert link_between(8, None, None) is NVLINK
    assert link_between(9, None, None) is NETWORK
    given = link_between(64, 100.0, None)
    assert (given.bandwidth, given.latency) == (100e9, NETWORK.latency)
    assert link_between(2, None, 5.0).latency == pytest.approx(5e-6)


def test_a_curve_is_straight_between_goes_on_above_and_stays_below() -> None:
    curve = Curve({8: 2.0, 16: 3.0, 32: 5.0})
    assert curve.seconds(16) == 3.0
    assert curve.seconds(12) == 2.5
    assert curve.seconds(64) == pytest.approx(9.0)
    assert curve.seconds(2) == 2.0
    assert Curve({8: 2.0}).seconds(16) == 4.0
    assert Curve({8: 2.0}).seconds(4) == 2.0


def test_a_modelled_row_by_hand() -> None:
    terms = Terms(32, Curve({8: 2.0, 32: 5.0}), Curve({8: 0.1, 32: 0.4}), num_bytes=1e9)
    row = terms.modelled(4, LINK)
    reduce = 6 * (0.25 + 0.001)
    assert row["images_per_gpu"] == share_of(32, 4) == 8
    assert row["all_reduce_seconds"] == pytest.approx(reduce)
    assert row["seconds_per_step"] == pytest.approx(2.0 + reduce)
    assert row["images_per_second"] == pytest.approx(32 / (2.0 + reduce))
    assert row["efficiency"] == pytest.approx(5.0 / (4 * (2.0 + reduce)))
    assert row["how"] == "modelled"


def test_input_counts_only_where_it_is_the_slowest() -> None:
    slow_host = Terms(8, Curve({8: 1.0}), Curve({8: 3.0}), num_bytes=0.0)
    assert slow_host.row(1, 1.0, 0.0, 3.0)["seconds_per_step"] == 3.0
    assert slow_host.row(1, 1.0, 0.0, 0.5)["seconds_per_step"] == 1.0


def test_the_busiest_rank_sets_the_pace() -> None:
    assert [share_of(32, gpus) for gpus in (1, 3, 32)] == [32, 11, 1]


def test_the_table_marks_what_is_modelled() -> None:
    terms = Terms(32, Curve({8: 2.0, 32: 5.0}), Curve({32: 0.4}), num_bytes=1e6)
    measured = terms.row(1, 5.0, 0.0, 0.4) | {"how": "measured"}
    head, first, second = scaling_table([measured, terms.modelled(4, NVLINK)]).splitlines()
    assert "all-reduce ms" in head and "efficiency" in head
    assert first.split()[:2] == ["1", "32"] and first.endswith("measured")
    assert second.endswith("modelled (NVLink 4)")
