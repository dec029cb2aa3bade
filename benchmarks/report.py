"""The report: one HTML page with its plots inside, to be mailed or kept; nothing is fetched when it is opened."""

from __future__ import annotations

import base64
import html
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks import plots
from benchmarks.host import describe
from engines.errors import UsageError

_STYLE = """
body{font:15px/1.5 system-ui,"DejaVu Sans",sans-serif;color:#1c2733;margin:2rem auto;max-width:1080px;padding:0 1rem}
h1{font-size:1.6rem;margin:0 0 .2rem} h2{font-size:1.15rem;margin:2.2rem 0 .6rem;border-bottom:1px solid #dde2e7;padding-bottom:.2rem}
p.about{color:#5a6775;margin:.1rem 0;font-size:.9rem} p.warning{background:#fff4e0;border-left:4px solid #dd8452;padding:.5rem .8rem}
.figures{display:flex;flex-wrap:wrap;gap:.8rem;margin:1.2rem 0}
.figure{border:1px solid #dde2e7;border-radius:8px;padding:.6rem 1rem;min-width:8.5rem}
.figure b{display:block;font-size:1.5rem;line-height:1.3} .figure span{color:#5a6775;font-size:.8rem;display:block}
table{border-collapse:collapse;font-size:.82rem;font-variant-numeric:tabular-nums;width:100%} th,td{padding:.25rem .5rem;text-align:right}
th{border-bottom:2px solid #c9d0d7;font-weight:600} td:first-child,th:first-child{text-align:left} tr:nth-child(even) td{background:#f6f8fa}
td.inner{padding-left:1.6rem;color:#5a6775}
.plots{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(440px,100%),1fr));gap:1rem}
.words{text-align:left} td{white-space:nowrap} td.words{white-space:normal} th{vertical-align:bottom}
figure{margin:0} figure img{width:100%} figcaption{font-size:.85rem;color:#5a6775} .scroll{overflow-x:auto}
details pre{font-size:.72rem;overflow:auto;max-height:30rem;background:#f6f8fa;padding:.8rem}
"""


def write_report(document: dict[str, Any], path: Path) -> None:
    """Under a temporary name first, then renamed: a page is whole or not there. UsageError where it cannot be written."""
    kinds: dict[str, Callable[[dict[str, Any]], str]] = {"pipeline": _pipeline, "latency": _latency_page}
    body = kinds[document["bench"]](document) if document["bench"] in kinds else generic(document)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_text(_page(document, body), encoding="utf-8")
        temporary.replace(path)
    except OSError as error:
        raise UsageError(f"the report {path} cannot be written: {error.strerror}") from error


def _page(document: dict[str, Any], body: str) -> str:
    title = f"fer-bench {document['bench']}"
    source = document.get("settings", {}).get("source")
    title += f" · {Path(source).name}" if source else ""
    warnings = "".join(f'<p class="warning">{html.escape(text)}</p>' for text in document.get("warnings", ()))
    about = f'<p class="about">{html.escape(describe(document["host"]))}</p>'
    raw = f"<details><summary>The document as JSON</summary><pre>{html.escape(json.dumps(document, indent=1))}</pre></details>"
    return (
        f'<!DOCTYPE html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f"<title>{html.escape(title)}</title><style>{_STYLE}</style></head><body><h1>{html.escape(title)}</h1>{about}{warnings}{body}"
        f"<h2>Everything</h2>{raw}</body></html>\n"
    )


def _pipeline(d: dict[str, Any]) -> str:
    s = d["settings"]
    what = (
        f"{s['width']}×{s['height']}, {s['frames']} frames at {s['source_fps']:g} fps ({s['codec']}), "
        f"{s['faces_per_frame']} faces a frame; detection on every {'' if s['interval'] == 1 else str(s['interval']) + '. '}frame "
        f"at {s['imgsz']} pixels; outputs: {s['outputs']}; {s['runs']} rounds"
    )
    own = "our detector is the chain's" if d["own_detector_is_the_kept_one"] else "chain with our detector"
    figures = [
        ("FPS", f"{d['fps']:.1f}", f"{d['fps_spread'][0]:.1f}…{d['fps_spread'][1]:.1f}"),
        ("efficiency", f"{d['efficiency']:.2f}", f"{_range(d['efficiency_spread'])}, of the bare chain's {d['bare_fps']:.1f} FPS"),
        ("efficiency_own", f"{d['efficiency_own']:.2f}", own),
        ("by CPU time", f"{d['cpu_efficiency']:.2f}", f"{_range(d['cpu_efficiency_spread'])}, {d['cpu_ms_per_frame']:.1f} ms a frame"),
        ("CPU", f"{d['cpu_share']:.0%}", "of the cores" + (f"; others {d['others_share']:.0%}" if d["others_share"] is not None else "")),
        ("peak memory", f"{d['peak_mb']:.0f} MB", ""),
    ]  # fmt: skip
    if d.get("start_s") is not None:
        figures.append(("first row after", f"{d['start_s']:.2f} s", f"{_range(d['start_s_spread'])}, from the start of the process"))
    if d["age_ms"] is not None:
        age, frames = d["age_ms"], d["age_frames"]
        figures.append(("age p95", f"{age['p95']:.0f} ms", f"{frames['p95']:.2f} frames; p50 {age['p50']:.0f}, p99 {age['p99']:.0f}"))
        figures.append(("drops", str(d["drops"]), "of the paced run"))
    names = {"full_fps": "full job", "bare_fps": "bare chain", "bare_own_fps": "bare chain, our detector"}
    bottleneck = f"<p><b>Bottleneck:</b> {html.escape(d['bottleneck']['sentence'])}.</p>"
    body = f'<p class="about">{html.escape(what)}</p>{_figures(figures)}{bottleneck}<h2>Throughput</h2>'
    rounds = plots.rounds({name: d["rounds"][name] for name in names}, names, "frames per second")
    body += _plots([
        (rounds, "Each round: the chains in turn, after warm-up."),
        (plots.shares(d["stages"]), "What each thread did. The bottleneck is busy while others starve or are blocked."),
        (plots.cpu_by_thread(d["threads"]), "CPU time of the whole process by thread, those of libraries too."),
    ])  # fmt: skip
    body += _stage_table(d["stages"]) + _queue_table(d["queues"])
    return body + (_latency(d["latency"]) if d.get("latency") else "")


def _latency(d: dict[str, Any]) -> str:
    looked = "" if d["looked_share"] is None else f"; the detector looked at {d['looked_share']:.1%} of the frames"
    about = (
        f"Paced at {d['source_fps']:g} fps through a live lane: {d['drops']} drops after the warm-up, {d['drops_in_warm_up']} in it"
        f"{_causes(d['drops_by_cause'])}; CPU {d['cpu_share']:.0%}, the reader itself late by {d['late_ms']['p95']:.1f} ms at p95{looked}."
    )
    if d["age_ms"] is None:
        return f"<h2>Latency</h2><p>{html.escape(about)} Not one frame came through after the warm-up.</p>"
    return f"<h2>Latency</h2><p>{html.escape(about)}</p>" + _plots([
        (plots.age_curve(d["age_quantiles_ms"], 1000 / d["source_fps"]), "Age: from decoding to the last output's write()."),
        (plots.journey(d["stages"]), "Where a frame's time goes; outputs run side by side."),
    ]) + _stage_table(d["stages"])  # fmt: skip


def _latency_page(d: dict[str, Any]) -> str:
    age = d["age_ms"] or {}
    figures = [(f"age {name}", f"{age[name]:.0f} ms", f"{d['age_frames'][name]:.2f} frames") for name in age]
    return _figures([*figures, ("drops", str(d["drops"]), ""), ("peak memory", f"{d['peak_mb']:.0f} MB", "")]) + _latency(d)


def generic(d: dict[str, Any]) -> str:
    """Documents that bring tables and plots: {"tables": [{title, head, rows}], "plots": [{kind, caption, arguments}]}."""
    body = _plots([(getattr(plots, one["kind"])(**one["arguments"]), one["caption"]) for one in d.get("plots", ())])
    for one in d.get("tables", ()):
        body += f"<h2>{html.escape(one['title'])}</h2>{table(one['head'], one['rows'])}"
        body += f"<p>{html.escape(one['sentence'])}</p>" if one.get("sentence") else ""
    return body


def table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """A row whose first cell begins with a space is indented."""
    kinds = [max((_kind(str(row[i]), first=False) for row in rows), default="") for i in range(len(head))]
    lines = ["".join(f"<th{kind}>{html.escape(str(cell))}</th>" for kind, cell in zip(kinds, head, strict=True))]
    for row in rows:
        lines.append("".join(f"<td{_kind(str(cell), first=not i)}>{html.escape(str(cell))}</td>" for i, cell in enumerate(row)))
    return '<div class="scroll"><table>' + "".join(f"<tr>{line}</tr>" for line in lines) + "</table></div>"


def _kind(cell: str, first: bool) -> str:
    """Indented, or a sentence that may wrap, or a number."""
    return ' class="inner"' if first and cell.startswith(" ") else ' class="words"' if len(cell) > 40 else ""


def _stage_table(stages: dict[str, dict[str, Any]]) -> str:
    from benchmarks.tables import stage_rows

    head, rows = stage_rows(stages)
    return table(head, rows)


def _queue_table(queues: dict[str, dict[str, Any]]) -> str:
    rows = [(name, f"{q['mean']:.1f}", q["max"], q["capacity"]) for name, q in queues.items()]
    return "<h2>Queues: batches in them, frames in the lane</h2>" + table(("queue of", "mean depth", "most", "capacity"), rows)


def _figures(figures: Sequence[tuple[str, str, str]]) -> str:
    cards = "".join(
        f'<div class="figure"><span>{html.escape(name)}</span><b>{html.escape(value)}</b><span>{html.escape(more)}</span></div>'
        for name, value, more in figures
    )
    return f'<div class="figures">{cards}</div>'


def _plots(images: Sequence[tuple[bytes, str]]) -> str:
    shown = "".join(
        f'<figure><img alt="{html.escape(caption)}" src="data:image/png;base64,{base64.b64encode(png).decode()}">'
        f"<figcaption>{html.escape(caption)}</figcaption></figure>"
        for png, caption in images
    )
    return f'<div class="plots">{shown}</div>'


def _causes(drops: dict[str, int]) -> str:
    return f" ({', '.join(f'{count} {cause}' for cause, count in drops.items())})" if drops else ""


def _range(values: Sequence[float]) -> str:
    return f"{values[0]:.2f}…{values[1]:.2f}"
