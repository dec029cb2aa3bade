"""protobuf's wire format, read lazily: as much as an ONNX file needs (protobuf.dev, "Encoding")."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from engines.errors import ModelError

_MOST_FIELDS = 1_000_000
"""A file with more fields than this is not a network (ours have under 10,000); reading it would only take time."""


class Budget:
    """How many fields may still be read; every field read costs one."""

    def __init__(self) -> None:
        self.left = _MOST_FIELDS

    def spend(self) -> None:
        self.left -= 1
        if self.left < 0:
            raise ModelError("has more parts than any network has; it is not a model to load")


def varint(view: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = view[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & 0xFFFFFFFFFFFFFFFF, at
        shift += 7
        if shift > 63:
            raise ValueError("varint too long")


def fields(view: memoryview, budget: Budget) -> Iterator[tuple[int, Any]]:
    """(field number, int or bytes view) of one message."""
    at, end = 0, len(view)
    while at < end:
        budget.spend()
        tag, at = varint(view, at)
        number, wire = tag >> 3, tag & 7
        if number == 0:
            raise ValueError("field 0")
        value: Any
        if wire == 0:
            value, at = varint(view, at)
        elif wire == 2:
            length, at = varint(view, at)
            if length > end - at:
                raise ValueError("truncated")
            value, at = view[at : at + length], at + length
        elif wire in (1, 5):
            length = 8 if wire == 1 else 4
            if length > end - at:
                raise ValueError("truncated")
            value, at = view[at : at + length], at + length
        else:
            raise ValueError("wire type")
        yield number, value


def text(value: Any) -> str:
    """Raises TypeError for a number, of which bytes() would make as many zeros."""
    return bytes(memoryview(value)).decode("utf-8")


def signed(value: int) -> int:
    return value - 2**64 if value >= 2**63 else value


def ints(value: Any) -> list[int]:
    """A repeated int64 arrives one by one or packed."""
    if isinstance(value, int):
        return [signed(value)]
    numbers, at = [], 0
    while at < len(value):
        number, at = varint(value, at)
        numbers.append(signed(number))
    return numbers
