"""C1–C9 of the design."""

from __future__ import annotations

import threading
from collections import deque

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, precondition, rule

from pipeline.flow.channel import BrokenChannel, ChannelTimeout, ClosedChannel, EndOfChannel, open_channel
from pipeline.flow.scope import Cancelled, ManualClock, Scope


def holds_c2(stats):
    return stats.sent == stats.received + stats.discarded + stats.depth


def test_a_channel_has_room_for_one_item_at_least():
    with pytest.raises(ValueError, match="capacity=0"):
        open_channel(0, Scope())


def test_c1_a_sender_waits_while_the_channel_is_full(start, eventually):
    sender, receiver = open_channel(2, Scope())
    sender.send(0)
    sender.send(1)
    third = start(sender.send, 2)
    eventually(lambda: sender.stats().waiting_senders == 1)
    assert sender.stats().depth == 2
    assert receiver.receive() == 0
    third.result(10)
    assert sender.stats().depth == 2


def test_c3_a_single_receiver_sees_everything_in_the_order_it_was_sent():
    first, receiver = open_channel(4, Scope())
    second = first.clone()
    for item, sender in enumerate((first, second, second, first)):
        sender.send(item)
    assert [receiver.receive() for _ in range(4)] == [0, 1, 2, 3]


def test_c4_after_the_last_sender_closed_the_buffer_still_arrives_then_the_end_for_ever():
    first, receiver = open_channel(4, Scope())
    second = first.clone()
    first.send(1)
    first.close()
    second.send(2)
    second.close()
    assert [receiver.receive(), receiver.receive()] == [1, 2]
    for _ in range(3):
        with pytest.raises(EndOfChannel):
            receiver.receive()


def test_c4_the_last_sender_closing_wakes_every_waiting_receiver(start, eventually):
    sender, receiver = open_channel(1, Scope())
    futures = [start(receiver.receive), start(receiver.clone().receive)]
    eventually(lambda: receiver.stats().waiting_receivers == 2)
    sender.close()
    for future in futures:
        assert isinstance(future.exception(10), EndOfChannel)


def test_c5_the_last_receiver_closing_discards_and_breaks_blocked_and_later_sends(start, eventually):
    sender, first = open_channel(1, Scope())
    second = first.clone()
    sender.send("kept by nobody")
    blocked = [start(sender.send, "too late") for _ in range(2)]
    eventually(lambda: sender.stats().waiting_senders == 2)
    first.close()
    assert sender.stats().waiting_senders == 2
    second.close()
    assert all(isinstance(one.exception(10), BrokenChannel) for one in blocked)
    with pytest.raises(BrokenChannel):
        sender.send("later")
    stats = sender.stats()
    assert (stats.sent, stats.discarded, stats.depth) == (1, 1, 0)


@pytest.mark.parametrize("end", ["sender", "receiver"])
def test_c6_close_is_idempotent_and_a_closed_end_raises(end):
    sender, receiver = open_channel(1, Scope())
    closed = sender if end == "sender" else receiver
    closed.close()
    closed.close()
    with pytest.raises(ClosedChannel):
        sender.send(1) if end == "sender" else receiver.receive()
    with pytest.raises(ClosedChannel):
        closed.clone()
    stats = closed.stats()
    assert (stats.open_senders, stats.open_receivers) == ((0, 1) if end == "sender" else (1, 0))


def test_c6_closing_an_end_wakes_all_threads_blocked_in_it(start, eventually):
    sender, receiver = open_channel(1, Scope())
    other = receiver.clone()
    receiving = [start(other.receive) for _ in range(2)]
    eventually(lambda: receiver.stats().waiting_receivers == 2)
    other.close()
    assert all(isinstance(one.exception(10), ClosedChannel) for one in receiving)
    sender.send(1)
    second = sender.clone()
    sending = [start(second.send, 2) for _ in range(2)]
    eventually(lambda: receiver.stats().waiting_senders == 2)
    second.close()
    assert all(isinstance(one.exception(10), ClosedChannel) for one in sending)
    assert receiver.stats().sent == 1


def test_c6_an_item_whose_chosen_receiver_closed_goes_to_another(start, eventually):
    for _ in range(50):
        sender, first = open_channel(1, Scope())
        second = first.clone()
        futures = [start(first.receive), start(second.receive)]
        eventually(lambda sender=sender: sender.stats().waiting_receivers == 2)
        sender.send("item")
        first.close()
        outcomes = [future.exception(10) or future.result(10) for future in (futures[0],)]
        if outcomes == ["item"]:
            sender.send("item")
        assert futures[1].result(10) == "item"


def test_c6_both_ends_are_context_managers():
    sender, receiver = open_channel(2, Scope())
    with sender:
        sender.send(1)
        sender.send(2)
    with receiver:
        assert list(receiver) == [1, 2]
    assert receiver.stats().open_receivers == 0


def test_c7_cancel_wakes_everyone_and_holds_for_later_calls(start, eventually):
    scope = Scope()
    full, _keep = open_channel(1, scope)
    _hold, empty = open_channel(1, scope)
    full.send(0)
    futures = [start(full.send, 1), start(full.clone().send, 2), start(empty.receive), start(empty.clone().receive)]
    eventually(lambda: full.stats().waiting_senders == 2 and empty.stats().waiting_receivers == 2)
    scope.cancel()
    for future in futures:
        assert isinstance(future.exception(10), Cancelled)
    with pytest.raises(Cancelled):
        _keep.receive()
    with pytest.raises(Cancelled):
        _hold.send(1)
    assert holds_c2(full.stats())


def test_c8_a_timeout_changes_nothing(start):
    clock = ManualClock()
    sender, receiver = open_channel(1, Scope(clock))
    receiving = start(receiver.receive, 1.5)
    assert clock.wait_for_waiters(1)
    clock.advance(1.0)
    assert not receiving.done()
    clock.advance(0.5)
    assert isinstance(receiving.exception(10), ChannelTimeout)
    sender.send(1)
    sending = start(sender.send, 2, 1.0)
    assert clock.wait_for_waiters(1)
    clock.advance(1.0)
    assert isinstance(sending.exception(10), TimeoutError)
    stats = receiver.stats()
    assert (stats.sent, stats.depth, stats.waiting_senders, stats.waiting_receivers) == (1, 1, 0, 0)
    assert receiver.receive(timeout=0) == 1
    with pytest.raises(ChannelTimeout):
        receiver.receive(timeout=0)


def test_c9_stats_show_who_waits(start, eventually):
    sender, receiver = open_channel(1, Scope())
    receiving = start(receiver.receive)
    eventually(lambda: sender.stats().waiting_receivers == 1)
    sender.send(1)
    assert receiving.result(10) == 1
    sender.send(2)
    sending = start(sender.send, 3)
    eventually(lambda: sender.stats().waiting_senders == 1)
    assert receiver.receive() == 2
    sending.result(10)
    stats = sender.stats()
    assert (stats.waiting_senders, stats.waiting_receivers) == (0, 0)


@settings(max_examples=40, deadline=None)
@given(
    capacity=st.integers(1, 4),
    senders=st.lists(st.integers(0, 40), min_size=1, max_size=4),
    receivers=st.integers(1, 3),
)
def test_c1_c2_c3_hold_whatever_the_threads_do(capacity, senders, receivers):
    scope = Scope()
    sender, receiver = open_channel(capacity, scope)
    got = [[] for _ in range(receivers)]
    seen = []

    def send(end, name, count):
        with end:
            for item in range(count):
                end.send((name, item))
                seen.append(end.stats())

    def receive(end, into):
        with end:
            for item in end:
                into.append(item)
                seen.append(end.stats())

    threads = [threading.Thread(target=send, args=(sender.clone(), n, count), daemon=True) for n, count in enumerate(senders)]
    threads += [threading.Thread(target=receive, args=(receiver.clone(), into), daemon=True) for into in got]
    sender.close()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
        assert not thread.is_alive()
    for stats in (*seen, receiver.stats()):
        assert stats.depth <= capacity
        assert holds_c2(stats)
    assert sorted(item for into in got for item in into) == [(n, i) for n, count in enumerate(senders) for i in range(count)]
    for into in got:
        for name in range(len(senders)):
            items = [item for who, item in into if who == name]
            assert items == sorted(items)


class ChannelMachine(RuleBasedStateMachine):
    """Any sequence of calls on any number of ends, none of which waits, against a deque and four counters."""

    senders = Bundle("senders")
    receivers = Bundle("receivers")

    def __init__(self):
        super().__init__()
        self.clock = ManualClock()
        self.scope = Scope(self.clock)
        self.first = open_channel(3, self.scope)
        self.buffer = deque()
        self.sent = self.received = self.discarded = 0
        self.open = {self.first[0]: True, self.first[1]: True}
        self.open_senders = self.open_receivers = 1

    @rule(target=senders)
    def first_sender(self):
        return self.first[0]

    @rule(target=receivers)
    def first_receiver(self):
        return self.first[1]

    def expect(self, end, otherwise):
        if not self.open[end]:
            return ClosedChannel
        return Cancelled if self.scope.cancelled else otherwise

    @rule(sender=senders, item=st.integers())
    def send(self, sender, item):
        full = ChannelTimeout if len(self.buffer) == 3 else None
        expected = self.expect(sender, BrokenChannel if not self.open_receivers else full)
        if expected is None:
            sender.send(item, timeout=0)
            self.buffer.append(item)
            self.sent += 1
        else:
            with pytest.raises(expected):
                sender.send(item, timeout=0)

    @rule(receiver=receivers)
    def receive(self, receiver):
        otherwise = None if self.buffer else (ChannelTimeout if self.open_senders else EndOfChannel)
        expected = self.expect(receiver, otherwise)
        if expected is None:
            assert receiver.receive(timeout=0) == self.buffer.popleft()
            self.received += 1
        else:
            with pytest.raises(expected):
                receiver.receive(timeout=0)

    @rule(target=senders, sender=senders)
    def clone_sender(self, sender):
        if not self.open[sender]:
            with pytest.raises(ClosedChannel):
                sender.clone()
            return sender
        clone = sender.clone()
        self.open[clone] = True
        self.open_senders += 1
        return clone

    @rule(target=receivers, receiver=receivers)
    def clone_receiver(self, receiver):
        if not self.open[receiver]:
            with pytest.raises(ClosedChannel):
                receiver.clone()
            return receiver
        clone = receiver.clone()
        self.open[clone] = True
        self.open_receivers += 1
        return clone

    @rule(sender=senders)
    def close_sender(self, sender):
        sender.close()
        self.open_senders -= self.open[sender]
        self.open[sender] = False

    @rule(receiver=consumes(receivers))
    def close_receiver(self, receiver):
        receiver.close()
        self.open_receivers -= self.open[receiver]
        self.open[receiver] = False
        if not self.open_receivers:
            self.discarded += len(self.buffer)
            self.buffer.clear()

    @precondition(lambda self: self.sent > 4)
    @rule()
    def cancel(self):
        self.scope.cancel()

    @invariant()
    def counts(self):
        stats = self.first[0].stats()
        assert (stats.sent, stats.received, stats.discarded) == (self.sent, self.received, self.discarded)
        assert stats.depth == len(self.buffer) <= stats.capacity == 3
        assert (stats.open_senders, stats.open_receivers) == (self.open_senders, self.open_receivers)
        assert holds_c2(stats)


class TestAnySequenceOfCalls(ChannelMachine.TestCase):
    settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
