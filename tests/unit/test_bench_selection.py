"""`make bench`: what a run measures, in which order, and what is said of one commit against another."""

from argparse import ArgumentTypeError

import pytest

from bench import scenarios, selection
from bench.measure import Latency, Measurement
from bench.pairs import compare
from bench.rounds import Round, Turn, capacity, in_turn
from bench.selection import Selection
from bench.systems import OURS, PEERS, orderflow

EARLIER = "Orderflow at 1234567"


def measured(cpu: float, per_second: float = 1.0, wait: float = 1.0) -> Measurement:
    latency = Latency(wait, 2 * wait)
    cpu_of = {"services": cpu}
    return Measurement(1, 1.0, per_second, latency, latency, cpu_of, cpu_of, {})


def turn(cpu: float, per_second: float = 1.0, wait: float = 1.0) -> Turn:
    seen = measured(cpu, per_second, wait)
    return Turn(closed={128: seen, 32: seen}, steady=seen, quarter=seen)


def test_names_are_separated_by_commas() -> None:
    assert selection.names("orderflow, floor") == ["orderflow", "floor"]


@pytest.mark.parametrize("text", ["orderflow,celeri", "", ","])
def test_an_unknown_name_is_refused_with_the_ones_there_are(text: str) -> None:
    with pytest.raises(ArgumentTypeError, match="choose from rounds, orderflow, floor, faststream"):
        selection.names(text)


def test_without_names_everything_is_measured() -> None:
    everything = Selection(True, tuple(PEERS), floor=True, trips=True, scenarios=tuple(scenarios.ALL))
    assert Selection.of([]) == everything


def test_rounds_are_all_systems_and_the_floor() -> None:
    assert Selection.of(["rounds"]) == Selection(True, tuple(PEERS), True, False, ())


def test_what_is_named_is_measured_alone() -> None:
    assert Selection.of(["orderflow"]) == Selection(True, (), False, False, ())
    assert Selection.of(["celery", "growth"]) == Selection(False, ("celery",), False, False, ("growth",))


def test_round_trips_are_counted_alone_without_a_round() -> None:
    assert Selection.of(["round-trips"]) == Selection(False, (), False, True, ())


def test_the_floor_and_an_earlier_commit_bring_orderflow() -> None:
    assert Selection.of(["floor"]) == Selection(True, (), True, False, ())
    assert Selection.of(["growth"], against=True) == Selection(True, (), False, False, ("growth",))


def test_systems_change_their_order_from_round_to_round() -> None:
    systems = [orderflow(), *(make() for make in PEERS.values())]
    assert in_turn(systems, 1) == in_turn(systems, 3) == systems
    assert in_turn(systems, 2) == in_turn(systems, 4) == systems[::-1]


def test_the_capacity_is_what_fills_the_cores() -> None:
    assert capacity(50.0, 2) == 40.0  # 40 orders/s of 50 ms each: two seconds of CPU in every second
    assert capacity(50.0, 4) == 80.0


def test_a_ratio_is_of_a_pair_and_the_median_of_the_rounds() -> None:
    rounds = [
        Round(turns={OURS: turn(2.0, 300.0), EARLIER: turn(1.0, 100.0)}),
        Round(turns={EARLIER: turn(10.0, 200.0), OURS: turn(40.0, 300.0)}),  # the machine was slow
        Round(turns={OURS: turn(3.0, 50.0), EARLIER: turn(1.0, 100.0)}),
    ]
    by_name = {compared.figure.name: compared for compared in compare(rounds, EARLIER)}
    cpu = by_name["CPU ms an order, 128 connections"]
    assert (cpu.ratios, cpu.ratio) == ([2.0, 4.0, 3.0], 3.0)
    assert cpu.is_sure and not cpu.is_better
    throughput = by_name["orders/s, 32"]
    assert (throughput.ratios, throughput.ratio) == ([3.0, 1.5, 0.5], 1.5)
    assert throughput.is_better and not throughput.is_sure


def test_rounds_without_the_earlier_commit_give_no_pair() -> None:
    assert compare([Round(turns={OURS: turn(1.0)})], EARLIER) == []
