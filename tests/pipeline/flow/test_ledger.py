"""decoded = shown + Σ dropped."""

from __future__ import annotations

import dataclasses
import json

from hypothesis import given
from hypothesis import strategies as st

from pipeline.flow.ledger import Ledger, SourceLedger


def test_it_balances_when_every_frame_was_shown_or_dropped_and_not_before():
    ledger = Ledger()
    ledger.decode("a", 3)
    ledger.show("a", 2)
    assert not ledger.snapshot().balanced
    assert ledger.snapshot().sources["a"].in_flight == 1
    ledger.lose("a", "stale")
    assert ledger.snapshot().balanced


def test_a_frame_that_a_source_drops_itself_counts_as_decoded():
    ledger = Ledger()
    ledger.drop("a", "stride", 4)
    assert ledger.snapshot().sources["a"] == SourceLedger(decoded=4, shown=0, dropped={"stride": 4})
    assert ledger.snapshot().balanced


def test_what_is_in_flight_is_booked_as_discarded_for_each_source():
    ledger = Ledger()
    ledger.decode("a", 5)
    ledger.show("a", 1)
    ledger.lose("a", "evicted", 1)
    ledger.decode("b", 2)
    ledger.show("b", 2)
    ledger.discard_in_flight()
    snapshot = ledger.snapshot()
    assert snapshot.sources["a"].dropped == {"evicted": 1, "discarded": 3}
    assert snapshot.sources["b"].dropped == {}
    assert snapshot.balanced
    assert snapshot.total == SourceLedger(7, 3, {"evicted": 1, "discarded": 3})


def test_a_surplus_in_one_source_does_not_hide_a_gap_in_another():
    ledger = Ledger()
    ledger.decode("a")
    ledger.show("b")
    assert ledger.snapshot().total.balanced
    assert not ledger.snapshot().balanced


def test_a_source_without_a_frame_has_an_account():
    ledger = Ledger()
    ledger.open("dark")
    assert ledger.snapshot().sources == {"dark": SourceLedger()}
    assert Ledger().snapshot().balanced


def test_a_snapshot_is_plain_and_does_not_change_afterwards():
    ledger = Ledger()
    ledger.drop("a", "stride")
    snapshot = ledger.snapshot()
    ledger.drop("a", "stride")
    assert json.loads(json.dumps(dataclasses.asdict(snapshot))) == {
        "sources": {"a": {"decoded": 1, "shown": 0, "dropped": {"stride": 1}}}
    }


def test_counts_from_many_threads_add_up(start):
    ledger = Ledger()

    def count():
        for _ in range(2000):
            ledger.decode("a")
            ledger.show("a")
            ledger.drop("a", "stride")

    for future in [start(count) for _ in range(4)]:
        future.result(20)
    assert ledger.snapshot().sources["a"] == SourceLedger(16000, 8000, {"stride": 8000})


@given(st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from(["decode", "show", "evicted", "stale", "stride"]), st.integers(1, 5))))
def test_after_booking_what_is_in_flight_no_source_has_anything_left_over(entries):
    ledger = Ledger()
    for source, what, count in entries:
        if what in ("decode", "show"):
            ledger.decode(source, count)
            if what == "show":
                ledger.show(source, count)
        elif what == "stride":
            ledger.drop(source, what, count)
        else:
            ledger.decode(source, count)
            ledger.lose(source, what, count)
    ledger.discard_in_flight()
    assert ledger.snapshot().balanced
