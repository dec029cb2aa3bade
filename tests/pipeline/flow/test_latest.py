"""Newest value per source."""

from __future__ import annotations

import pytest

from pipeline.flow.channel import ChannelTimeout, ClosedChannel, EndOfChannel
from pipeline.flow.latest import Latest
from pipeline.flow.scope import Cancelled, ManualClock, Scope


def test_a_reader_gets_the_newest_value_of_each_source_and_counts_what_it_missed():
    latest = Latest()
    reader = latest.reader()
    for value in range(5):
        latest.put("a", value)
    latest.put("b", "x")
    assert reader.get() == {"a": 4, "b": "x"}
    assert reader.missed == 4


def test_a_reader_sees_each_value_once_and_waits_for_a_newer_one(start):
    clock = ManualClock()
    latest = Latest(Scope(clock))
    reader = latest.reader()
    latest.put("a", 1)
    assert reader.get(timeout=0) == {"a": 1}
    with pytest.raises(ChannelTimeout):
        reader.get(timeout=0)
    waiting = start(reader.get, 5)
    assert clock.wait_for_waiters(1)
    latest.put("a", 2)
    assert waiting.result(10) == {"a": 2}
    waiting = start(reader.get, 5)
    assert clock.wait_for_waiters(1)
    clock.advance(5)
    assert isinstance(waiting.exception(10), ChannelTimeout)
    assert reader.missed == 0


def test_readers_do_not_take_from_each_other():
    latest = Latest()
    readers = [latest.reader(), latest.reader()]
    latest.put("a", 1)
    assert [reader.get() for reader in readers] == [{"a": 1}, {"a": 1}]


def test_a_new_reader_begins_with_what_is_there_and_missed_nothing():
    latest = Latest()
    latest.put("a", 1)
    latest.put("a", 2)
    reader = latest.reader()
    assert reader.get(timeout=0) == {"a": 2}
    assert reader.missed == 0


def test_a_reader_of_one_source_ignores_the_others():
    latest = Latest()
    reader = latest.reader("b")
    latest.put("a", 1)
    with pytest.raises(ChannelTimeout):
        reader.get(timeout=0)
    latest.put("b", 2)
    assert reader.get(timeout=0) == {"b": 2}


def test_put_never_waits_for_a_reader():
    latest = Latest()
    latest.reader()
    for value in range(10_000):
        latest.put("a", value)


def test_after_close_readers_get_what_is_new_then_the_end_for_ever():
    latest = Latest()
    reader = latest.reader()
    latest.put("a", 1)
    latest.close()
    latest.close()
    assert reader.get() == {"a": 1}
    for _ in range(2):
        with pytest.raises(EndOfChannel):
            reader.get()
    with pytest.raises(ClosedChannel):
        latest.put("a", 2)


def test_close_and_cancel_wake_waiting_readers(start):
    for end, error in (("close", EndOfChannel), ("cancel", Cancelled)):
        clock = ManualClock()
        scope = Scope(clock)
        latest = Latest(scope)
        waiting = start(latest.reader().get, 60)
        assert clock.wait_for_waiters(1)
        latest.close() if end == "close" else scope.cancel()
        assert isinstance(waiting.exception(10), error)
