"""Rows as Parquet: the same as in the other formats, typed; and none is lost to a kill, a full disk, or a second run."""

from __future__ import annotations

import json
import signal
from datetime import UTC, datetime
from pathlib import Path

import pytest
from command import fer, rows, start, until

from pipeline.api import load_config, run
from pipeline.errors import SinkError, StageError, UsageError
from pipeline.events import COLUMNS, run_row
from pipeline.sinks import parquet
from pipeline.sinks.events import EventsSink, events_format
from pipeline.sinks.lines import jsonl_from_rows
from pipeline.sinks.parquet import Parquet, journal_of, recover, schema

pq = pytest.importorskip("pyarrow.parquet", reason="Parquet needs pyarrow (the extra parquet)")

GOLDEN = Path(__file__).parent / "sinks" / "golden" / "events.jsonl"


def golden() -> list[dict]:
    return [json.loads(line) for line in GOLDEN.read_text().splitlines()]


def written(path: Path, found: list[dict], **settings) -> Parquet:
    file = Parquet(str(path), **settings)
    for row in found:
        file.append([row])
    return file


def plain(path: Path) -> list[dict]:
    """Rows as JSON lines would have them."""
    table = pq.read_table(path).to_pylist()
    for row in table:
        if row["time_utc"] is not None:
            row["time_utc"] = row["time_utc"].isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return table


def test_rows_and_columns_are_those_of_json_lines_in_their_order(tmp_path: Path) -> None:
    written(tmp_path / "a.parquet", golden()).close()
    assert plain(tmp_path / "a.parquet") == golden()
    assert tuple(pq.read_schema(tmp_path / "a.parquet").names) == COLUMNS
    assert [path.name for path in tmp_path.iterdir()] == ["a.parquet"]


def test_columns_have_types(tmp_path: Path) -> None:
    kinds = {field.name: str(field.type) for field in schema()}
    assert (kinds["frame"], kinds["x1"], kinds["observed"], kinds["p_sad"], kinds["kind"]) == (
        "int64",
        "double",
        "bool",
        "double",
        "string",
    )
    assert kinds["time_utc"] == "timestamp[ms, tz=UTC]"
    written(tmp_path / "a.parquet", golden()).close()
    times = [time for time in pq.read_table(tmp_path / "a.parquet")["time_utc"].to_pylist() if time]
    assert times[0] == datetime(2025, 1, 2, 12, 0, 0, 250000, tzinfo=UTC)


def test_row_groups_keep_memory_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet, "GROUP", 3000)
    file, row = Parquet(str(tmp_path / "a.parquet")), golden()[2]
    for i in range(80):
        file.append([{**row, "frame": 100 * i + j} for j in range(100)])
    assert len(file._columns._rows) < parquet._CHUNK
    file.close()
    data = pq.ParquetFile(tmp_path / "a.parquet")
    assert [data.metadata.row_group(i).num_rows for i in range(data.num_row_groups)] == [3000, 3000, 2000]
    assert pq.read_table(tmp_path / "a.parquet")["frame"].to_pylist() == list(range(8000))


def test_until_the_footer_every_row_is_in_the_journal(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    file = written(path, golden())
    assert rows(journal_of(path)) == golden()
    assert not path.exists()
    file.close()
    assert not journal_of(path).exists()


def test_a_journal_left_behind_becomes_a_file_of_its_own(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "a.parquet"
    for name in ("a.recovered.parquet", "a.recovered_2.parquet"):
        journal_of(path).write_bytes(GOLDEN.read_bytes() + b'{"source":"torn')
        recover(str(path))
        assert plain(tmp_path / name) == golden()
        assert not journal_of(path).exists()
        assert f"its {len(golden())} rows, kept in {journal_of(path)}, are now in {tmp_path / name}" in caplog.text


def test_names_that_are_not_utf_8_are_written_as_in_the_other_formats(tmp_path: Path) -> None:
    path, row = tmp_path / "a.parquet", {**golden()[2], "source": "caf\udce9.mp4"}
    written(path, [row]).close()
    assert [row["source"] for row in plain(path)] == ["caf\\udce9.mp4"]


def test_a_journal_with_such_a_name_is_recovered(tmp_path: Path) -> None:
    path, row = tmp_path / "a.parquet", {**golden()[2], "source": "caf\udce9.mp4"}
    journal_of(path).write_bytes(jsonl_from_rows([row]))
    recover(str(path))
    assert [row["source"] for row in plain(tmp_path / "a.recovered.parquet")] == ["caf\\udce9.mp4"]


def test_a_sink_that_cannot_be_finished_takes_no_other_with_it(tmp_path: Path) -> None:
    class Broken(EventsSink):
        def finish(self, info: dict | None = None) -> None:
            raise RuntimeError("broken")

    sinks = (Broken(tmp_path / "a.jsonl", info={}), EventsSink(tmp_path / "b.jsonl", info={}, source="demo"))
    with pytest.raises(StageError, match="events failed: RuntimeError: broken"):
        run("demo", config=load_config(changes={"backend": "fake"}), max_frames=2, sinks=sinks)
    assert "ledger" in json.loads(rows(tmp_path / "b.jsonl")[-1]["info"])


def test_a_second_run_on_the_same_file_is_refused(tmp_path: Path) -> None:
    first = written(tmp_path / "a.parquet", golden())
    with pytest.raises(SinkError, match=r"another run is writing to .*a\.parquet; name another file"):
        Parquet(str(tmp_path / "a.parquet"), overwrite=True)
    first.close()
    assert plain(tmp_path / "a.parquet") == golden()


def test_what_another_program_made_meanwhile_is_not_replaced(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    file = written(path, golden())
    path.write_text("somebody else's")
    with pytest.raises(SinkError, match=r"its rows are in .*a\.parquet\.jsonl"):
        file.close()
    assert path.read_text() == "somebody else's"
    assert rows(journal_of(path)) == golden()


def test_a_write_that_fails_leaves_the_journal(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    file = written(path, golden())
    file._journal.file.close()
    with pytest.raises(SinkError, match="cannot write events"):
        file.append(golden())
    file.close()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.parquet.jsonl"]
    assert rows(journal_of(path)) == golden()


def test_without_pyarrow_one_sentence_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"pyarrow is not installed; pip install 'fer-stream\[parquet\]', or use \.jsonl or \.csv"):
        events_format("a.parquet")


def test_the_command_writes_what_json_lines_have(tmp_path: Path) -> None:
    for name in ("a.parquet", "a.jsonl"):
        done = fer("--source", "demo", "--max-frames", 12, "--events", tmp_path / name, "--quiet")
        assert (done.returncode, done.stderr) == (0, "")
    said, expected = plain(tmp_path / "a.parquet"), rows(tmp_path / "a.jsonl")
    for row in (*said, *expected):
        row.pop("info")
    assert said == expected
    assert [row["kind"] for row in said][:: len(said) - 1] == ["run", "run"]


def test_a_killed_run_loses_no_row_and_the_next_one_says_where_they_are(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    process = start("--source", "demo", "--realtime", "--events", path, "--quiet")
    until(lambda: journal_of(path).exists() and len(rows(journal_of(path))) > 5, process=process)
    process.send_signal(signal.SIGKILL)
    process.wait()
    kept = rows(journal_of(path))
    assert kept[0]["kind"] == "run"
    assert not path.exists()
    done = fer("--source", "demo", "--max-frames", 2, "--events", path)
    assert done.returncode == 0
    assert str(journal_of(path)) in " ".join(done.stderr.split())
    assert plain(tmp_path / "a.recovered.parquet") == kept
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.parquet", "a.recovered.parquet"]


def test_run_rows_fit_too(tmp_path: Path) -> None:
    written(tmp_path / "a.parquet", [run_row({"purpose": "a test"})]).close()
    assert json.loads(plain(tmp_path / "a.parquet")[0]["info"])["purpose"] == "a test"
