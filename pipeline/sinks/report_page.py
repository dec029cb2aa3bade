"""The report as text: one HTML file without script, network or fonts of its own; light or dark as the reader's system is.

Made of small functions, one per part of the page, top to bottom. Everything that comes from outside goes through `text`.
"""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Iterable
from datetime import datetime
from typing import Any

from engines.contract import LABELS, UNCERTAIN
from pipeline.sinks.report import SHOWN, Bins, Cell, Person, Watched
from pipeline.sinks.report_style import STYLE
from pipeline.sinks.report_words import clock, count, duration, percent, text

_LAW = (
    "In the EU, inferring emotions of people at work or in education is prohibited (AI Act, Art. 5(1)(f)), "
    "and people who are filmed for such an analysis must be told (Art. 50)."
)
_LIMITS = (
    "An expression is not a feeling. The labels say what a face looks like to people who judged photographs, not what somebody felt.",
    "Probabilities were calibrated on such photographs. In other light, from other angles, with covered faces, and for people who "
    "are rare among the photographs they are less reliable.",
    "“uncertain” means that no label was likely enough, or that the face was too small, blurred or turned away to read.",
    "Numbers follow faces, not people: somebody who leaves and comes back may get a new number.",
    "Shares are shares of the time in which a face was followed. Seconds in which nobody was found count for nobody.",
)  # fmt: skip
_TICKS = (0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 43200, 86400)


def page(sources: dict[str, Watched], info: dict[str, Any], result: dict[str, Any], begun: datetime) -> str:
    """The whole file. `info`: facts of the run as in the first row of the events; `result`: the ledger and the run's seconds."""
    sources = {name: sources[name] for name in [*result.get("ledger", {}), *sources] if name in sources}  # in the order of the run
    title = _short(next(iter(sources))) if len(sources) == 1 else f"{len(sources)} sources"
    settings = info.get("settings", {})
    parts = [
        _head(title, info, begun),
        _figures(sources, result.get("ledger", {})),
        _law(info.get("purpose", ""), settings.get("privacy") == "blur"),
        *(_source(name, source, len(sources) > 1) for name, source in sources.items()),
        _ledger(sources, result.get("ledger", {})),
        _models(info.get("models", {})),
        _limits(),
        _settings(settings),
        _foot(info, result),
    ]
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width,initial-scale=1">'
        f'<meta name="color-scheme" content="light dark"><meta name="generator" content="fer-stream">'
        f'<meta name="description" content="{text("Faces analysed by fer-stream. Purpose: " + (info.get("purpose") or "not declared"))}">'
        f"<title>{text(title)} – faces and expressions</title><style>{STYLE}</style></head>"
        f"<body><main>{''.join(parts)}</main></body></html>\n"
    )


def _head(title: str, info: dict[str, Any], begun: datetime) -> str:
    version = f" {info['fer_stream']}" if "fer_stream" in info else ""
    return (
        f'<header><p class="over">Faces and expressions</p><h1>{text(title)}</h1>'
        f'<p class="dim">Analysed {begun:%d %B %Y, %H:%M} UTC with fer-stream{text(version)}</p></header>'
    )


def _figures(sources: dict[str, Watched], ledger: dict[str, Any]) -> str:
    watched = sources.values()
    people = sum(len(source.people) + source.more_people for source in watched)
    span = sum(source.last_s - (source.first_s or 0.0) + source.step_s for source in watched if source.kind != "image")
    frames, dropped = sum(source.frames for source in watched), sum(sum(one["dropped"].values()) for one in ledger.values())
    pictures = all(source.kind == "image" for source in watched)
    figures = [
        (f"{people:,}", "faces found" if pictures else "faces followed"),
        (f"{frames:,}", "pictures" if pictures else "frames analysed"),
    ]
    if not pictures:
        figures += [
            (clock(span), "of video"),
            (f"{sum(source.faces for source in watched):,}", "faces in them"),
            (f"{dropped:,}", "frames dropped"),
        ]
    return '<dl class="figures">' + "".join(f"<div><dd>{value}</dd><dt>{what}</dt></div>" for value, what in figures) + "</dl>"


def _law(purpose: str, hidden: bool) -> str:
    said = f"<b>{text(purpose)}</b>" if purpose else '<b class="warn">not declared</b> (<code>--purpose</code>)'
    mosaics = "<p>Faces are hidden by mosaics in everything that this run showed or wrote, this page too.</p>" if hidden else ""
    return f'<section class="note"><p>Purpose of this analysis: {said}</p>{mosaics}<p>{text(_LAW)}</p></section>'


def _source(name: str, source: Watched, several: bool) -> str:
    head = f"<h2>{text(_short(name))}</h2>" if several else "<h2>Who showed what, and when</h2>"
    found, unit = len(source.people) + source.more_people, "picture" if source.kind == "image" else "frame"
    words = f"{text(name)} · {count(source.frames, unit)}, {source.size[0]}×{source.size[1]}, {count(found, 'face')}"
    body = (
        _total(source.total) + (_pictures(source) if source.kind == "image" else _people(source)) if found else "<p>No face was found.</p>"
    )
    return f'<section>{head}<p class="dim">{words}</p>{body}</section>'


def _total(total: Cell) -> str:
    """All faces together: a bar, and the legend of the page with its shares; a dash for a class that the classifier lacks."""
    every = float(total.seconds.sum())
    legend = "".join(
        f'<li class="{label}{"" if seconds > 0 else " none"}"><i></i>{label} <b>{percent(seconds, every) if can else "–"}</b></li>'
        for label, seconds, can in zip(SHOWN, total.seconds, total.can_be_said, strict=True)
    )
    return f'<div class="total">{_bar(total)}<ul class="legend">{legend}</ul></div>'


def _bar(cell: Cell) -> str:
    every = float(cell.seconds.sum()) or 1.0
    parts = (
        f'<i class="{label}" style="width:{100 * seconds / every:.2f}%" title="{label} {percent(seconds, every)}"></i>'
        for label, seconds in zip(SHOWN, cell.seconds, strict=True) if seconds > 0
    )  # fmt: skip
    return f'<span class="bar">{"".join(parts)}</span>'


def _people(source: Watched) -> str:
    start_s, end_s = source.first_s or 0.0, source.last_s + source.step_s
    steps, rows = _by_person(source.timeline), _by_person(source.table)
    order = sorted(source.people.items(), key=lambda pair: (pair[1].first_s, pair[0]))
    lines = "".join(
        f"<details><summary>{_who(person)}{_timeline(steps[track], source.timeline.width_s, start_s, end_s)}</summary>"
        f'<div class="inside">{_said(person)}{_table(rows[track], source.table.width_s)}</div></details>'
        for track, person in order
    )
    return (
        f'<p class="dim">A line per face; open one for its table{_bin_words(source.table.width_s)}. '
        "Thin grey: uncertain. Empty: not in the picture.</p>"
        f'<div class="timeline">{_axis(start_s, end_s)}{lines}{_axis(start_s, end_s) if len(order) > 8 else ""}</div>{_more(source)}'
    )


def _bin_words(width_s: float) -> str:
    return ", second by second" if width_s == 1 else f", a row per {duration(width_s)}: the run is long"


def _who(person: Person) -> str:
    picture = (
        f'<img alt="" width="40" height="40" src="data:image/jpeg;base64,{person.thumbnail}">'
        if person.thumbnail
        else '<i class="noface"></i>'
    )
    when = f"{clock(person.first_s)}–{clock(person.last_s)}"
    return f'<span class="who">{picture}<span><b>{text(person.name)}</b><small>{when}</small></span></span>'


def _timeline(steps: dict[int, Cell], width_s: float, start_s: float, end_s: float) -> str:
    """Runs of one label as rectangles, thousandths of the whole."""
    scale = 1000 / max(end_s - start_s, 1e-9)
    runs: list[list[Any]] = []
    for step in sorted(steps):
        if runs and runs[-1][1] == step and runs[-1][2] == steps[step].label:
            runs[-1][1] = step + 1
        else:
            runs.append([step, step + 1, steps[step].label])
    shapes = []
    for first, after, label in runs:
        a, b = max(first * width_s, start_s), min(after * width_s, end_s)
        y, high = (8, 4) if label == UNCERTAIN else (0, 20)
        shapes.append(
            f'<rect class="{label}" x="{(a - start_s) * scale:.2f}" y="{y}" width="{max((b - a) * scale, 0.8):.2f}" height="{high}">'
            f"<title>{clock(a)}–{clock(b)} {label}</title></rect>"
        )
    return f'<svg viewBox="0 0 1000 20" preserveAspectRatio="none" role="img" aria-label="labels over time">{"".join(shapes)}</svg>'


def _axis(start_s: float, end_s: float) -> str:
    span = max(end_s - start_s, 1e-9)
    step = next((tick for tick in _TICKS if span / tick <= 6), 7 * 86400)
    first = -(-start_s // step)
    times = [(first + i) * step for i in range(8) if (first + i) * step <= end_s + 1e-9]
    marks = "".join(
        f'<span{" class=end" if time - start_s > 0.95 * span else ""} style="left:{100 * (time - start_s) / span:.2f}%">'
        f"{clock(time, step < 1)}</span>"
        for time in times
    )
    return f'<div class="axis"><div>{marks}</div></div>'


def _said(person: Person) -> str:
    every = float(person.total.seconds.sum())
    shares = sorted(zip(SHOWN, person.total.seconds, strict=True), key=lambda pair: -pair[1])
    words = ", ".join(f"{label} {percent(seconds, every)}" for label, seconds in shares if seconds > 0)
    return f'<div class="said">{_bar(person.total)}<p>{words or "nothing"} of {duration(every)}</p></div>'


def _table(rows: dict[int, Cell], width_s: float) -> str:
    body = "".join(
        f'<tr><th>{clock(step * width_s, False)}</th><td class="{rows[step].label}"><i></i>{rows[step].label}</td>'
        f"<td>{rows[step].seconds.sum():.1f}</td>{_chances(rows[step])}</tr>"
        for step in sorted(rows)
    )
    return _grid(("from", "label", "seen, s", *LABELS), body, "times")


def _chances(cell: Cell) -> str:
    """Mean probabilities in percent, the cell the darker the higher; a dash for what is not known."""
    chances = (100 * value for value in cell.probabilities)
    return "".join("<td>–</td>" if math.isnan(value) else f'<td style="--v:{value:.0f}%">{value:.0f}</td>' for value in chances)


def _pictures(source: Watched) -> str:
    body = "".join(
        f'<tr><td class="who">{_thumb(person)}{text(person.name)}</td><td class="{person.total.label}"><i></i>{person.total.label}</td>'
        f"{_chances(person.total)}</tr>"
        for person in source.people.values()
    )
    return _grid(("face in", "label", *LABELS), body, "times") + _more(source)


def _thumb(person: Person) -> str:
    return f'<img alt="" width="40" height="40" src="data:image/jpeg;base64,{person.thumbnail}">' if person.thumbnail else ""


def _ledger(sources: dict[str, Watched], ledger: dict[str, Any]) -> str:
    rows = []
    for name in {**ledger, **sources}:
        frames = sources[name].frames if name in sources else 0
        one = ledger.get(name, {"decoded": frames, "shown": frames, "dropped": {}, "carried": 0})
        dropped = ", ".join(f"{number:,} {cause}" for cause, number in one["dropped"].items()) or "none"
        why = sources[name].ended if name in sources else "no frame came"
        counts = "".join(f"<td>{one[what]:,}</td>" for what in ("decoded", "shown", "carried"))
        rows.append(f"<tr><th>{text(name)}</th>{counts}<td>{text(dropped)}</td><td>{text(why)}</td></tr>")
    table = _grid(("source", "decoded", "shown", "without a look", "dropped", "ended by"), "".join(rows), "ledger")
    return f"<section><h2>Where every frame went</h2>{table}</section>"


def _models(models: dict[str, Any]) -> str:
    rows = "".join(
        f"<tr><th>{text(role)}</th><td>{text(one.get('name'))}</td><td>{text(one.get('backend'))}</td>"
        f'<td class="hash">{text(one.get("sha256"))}</td></tr>'
        for role, one in models.items()
    )
    table = _grid(("role", "name", "run by", "SHA-256 of its file"), rows)
    return f"<section><h2>Models</h2>{table}</section>" if rows else ""


def _limits() -> str:
    return "<section><h2>How to read this</h2><ul>" + "".join(f"<li>{text(line)}</li>" for line in _LIMITS) + "</ul></section>"


def _settings(settings: dict[str, Any]) -> str:
    rows = "".join(f"<tr><th>{text(key)}</th><td>{text(value)}</td></tr>" for key, value in _flat(settings))
    return (
        f'<details class="plain"><summary>All settings</summary><div class="scroll"><table>{rows}</table></div></details>' if rows else ""
    )


def _foot(info: dict[str, Any], result: dict[str, Any]) -> str:
    machine = info.get("machine", {})
    facts = [
        f"run {info['run_id']}" if "run_id" in info else "",
        f"finished in {duration(result['seconds'])}" if result.get("seconds") else "",
        f"Python {machine['python']}, {machine['system']}, {machine['cores']} cores" if machine else "",
    ]
    return f'<footer class="dim">{text(" · ".join(fact for fact in facts if fact))}</footer>'


def _short(name: str) -> str:
    """A file's name without its folders; anything else as it is."""
    return name if "://" in name else name.rstrip("/").rsplit("/", 1)[-1] or name


def _more(source: Watched) -> str:
    """The people beyond the limit."""
    return f'<p class="dim">{count(source.more_people, "more face")} are counted, not shown.</p>' if source.more_people else ""


def _grid(titles: Iterable[str], body: str, kind: str = "") -> str:
    """A table that scrolls by itself. `body`: its rows, markup."""
    head = "".join(f"<th>{title}</th>" for title in titles)
    return f'<div class="scroll"><table class="{kind}"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _by_person(bins: Bins) -> dict[int, dict[int, Cell]]:
    found: dict[int, dict[int, Cell]] = defaultdict(dict)
    for (person, step), cell in bins.cells.items():
        found[person][step] = cell
    return found


def _flat(settings: dict[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    rows: list[tuple[str, str]] = []
    for key, value in settings.items():
        rows += _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else [(f"{prefix}{key}", json.dumps(value, default=str))]
    return rows
