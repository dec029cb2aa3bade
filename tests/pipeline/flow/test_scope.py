"""Cancellation and clocks."""

from __future__ import annotations

import threading
import time

import pytest

from pipeline.flow.scope import Cancelled, ManualClock, MonotonicClock, Scope


def test_cancel_wakes_every_waiter_of_every_condition(start, eventually):
    scope = Scope()
    conditions = [threading.Condition() for _ in range(3)]
    waiting = []

    def wait(condition):
        with condition:
            while True:
                scope.check()
                waiting.append(condition)
                scope.clock.wait_until(condition, None)

    for condition in conditions:
        scope.watch(condition)
    futures = [start(wait, condition) for condition in conditions for _ in range(2)]
    eventually(lambda: len(waiting) == 6)
    scope.cancel()
    for future in futures:
        assert isinstance(future.exception(10), Cancelled)


def test_a_cancelled_scope_stays_cancelled_and_cancelling_again_changes_nothing():
    scope = Scope()
    scope.check()
    scope.cancel()
    scope.cancel()
    assert scope.cancelled
    with pytest.raises(Cancelled):
        scope.check()


def test_a_scope_does_not_keep_conditions_alive():
    scope = Scope()
    scope.watch(threading.Condition())
    scope.cancel()
    assert not list(scope._conditions)


def test_the_monotonic_clock_is_the_one_that_frames_are_stamped_with():
    before = time.monotonic()
    assert before <= MonotonicClock().now() <= time.monotonic()


def test_the_monotonic_clock_returns_at_a_deadline_that_has_passed():
    condition = threading.Condition()
    clock = MonotonicClock()
    with condition:
        clock.wait_until(condition, clock.now() - 1)
        clock.wait_until(condition, clock.now() + 0.001)


def test_a_manual_clock_moves_only_when_advanced_and_never_back():
    clock = ManualClock(5.0)
    assert clock.now() == 5.0
    clock.advance(0.25)
    assert clock.now() == 5.25
    with pytest.raises(ValueError, match="never goes back"):
        clock.advance(-1)


def test_a_manual_clock_wakes_those_whose_deadline_has_come_and_no_others(start):
    clock = ManualClock()

    def wait(deadline):
        condition = threading.Condition()
        with condition:
            while clock.now() < deadline:
                clock.wait_until(condition, deadline)

    early, late = start(wait, 1.0), start(wait, 2.0)
    assert clock.wait_for_waiters(2)
    clock.advance(1.0)
    early.result(10)
    assert not late.done()
    clock.advance(1.0)
    late.result(10)


def test_a_manual_clock_does_not_wait_for_a_deadline_that_has_passed():
    condition = threading.Condition()
    with condition:
        ManualClock(3.0).wait_until(condition, 3.0)


def test_advancing_while_threads_begin_to_wait_loses_no_wake_up(start):
    clock = ManualClock()

    def wait(steps):
        condition = threading.Condition()
        with condition:
            for deadline in steps:
                while clock.now() < deadline:
                    clock.wait_until(condition, deadline)

    futures = [start(wait, range(n, 200, 3)) for n in range(3)]
    for _ in range(200):
        clock.advance(1)
    for future in futures:
        future.result(10)
