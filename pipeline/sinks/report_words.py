"""Numbers and names as the report says them; all are safe to stand in HTML."""

from __future__ import annotations

from html import escape
from typing import Any


def clock(seconds: float, tenths: bool = True) -> str:
    """m:ss.s, h:mm:ss from an hour on."""
    sign, value = "−" if seconds < -0.05 else "", round(abs(seconds), 1 if tenths else 0)
    minutes, rest = divmod(value, 60)
    if minutes >= 60:
        return f"{sign}{int(minutes // 60)}:{int(minutes % 60):02}:{int(rest):02}"
    return f"{sign}{int(minutes)}:{rest:04.1f}" if tenths else f"{sign}{int(minutes)}:{int(rest):02}"


def duration(seconds: float) -> str:
    return (
        f"{seconds:.1f} s"
        if seconds < 10
        else f"{seconds:.0f} s"
        if seconds < 120
        else f"{seconds / 60:.0f} min"
        if seconds < 7200
        else f"{seconds / 3600:.1f} h"
    )


def percent(part: float, whole: float) -> str:
    share = 100 * part / whole if whole > 0 else 0.0
    return "&lt;1%" if 0 < share < 0.5 else f"{share:.0f}%"


def count(number: int, word: str) -> str:
    return f"{number:,} {word}" if number == 1 else f"{number:,} {word}s"


def text(value: Any) -> str:
    return escape("" if value is None else str(value))
