"""What the pages say and how tables are set."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.report import table


def test_a_column_of_words_and_its_head_are_on_the_left() -> None:
    page = table(["model", "precision", "why"], [["a", "f32", "it has no such precision, " * 3], ["b", "f16", ""]])
    assert "<th>precision</th>" in page
    assert '<th class="words">why</th>' in page


def test_the_page_says_drops_in_a_sentence_without_a_stray_space(measured: tuple[dict[str, Any], Path]) -> None:
    text = measured[1].read_text()
    assert " in it;" in text or " in it (" in text
    assert " in it ;" not in text


def test_heads_wrap_so_that_the_last_column_of_the_stages_is_seen(measured: tuple[dict[str, Any], Path]) -> None:
    text = measured[1].read_text()
    assert "th{white-space:nowrap}" not in text
    assert "p50\u00a0/\u00a095\u00a0/\u00a099" in text


def test_the_units_of_queues_are_told(measured: tuple[dict[str, Any], Path]) -> None:
    assert "batches in them, frames in the lane" in measured[1].read_text()
