"""What a stage remembers of a source's epoch goes when the epoch ends, or a camera that reconnects for days fills the memory."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from pipeline.flow.batch import Ended

State = TypeVar("State")


def forget(states: dict[Any, State], ended: Ended) -> list[State]:
    """Takes out of `states` everything whose key begins with (source, epoch) of `ended`; returns it in the order of its keys."""
    over = [key for key in states if key[:2] == (ended.source, ended.epoch)]
    return [states.pop(key) for key in over]
