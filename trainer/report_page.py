"""The report as one HTML file without script, network or fonts of its own; light or dark as the reader's system is.

Small functions, one per part of the page, top to bottom. Everything that comes from outside goes through `text`.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

LAW = (
    "In the EU, inferring emotions of people at work or in education is prohibited (AI Act, Art. 5(1)(f)), and people who are filmed "
    "for such an analysis must be told (Art. 50). The model is for research and measurement of expressions, not for decisions about people."
)
_STYLE = """
:root{--page:#f6f7f9;--card:#fff;--ink:#1b1f24;--dim:#5b6470;--line:#dfe3e8;--mark:#207ecc}
@media(prefers-color-scheme:dark){:root{--page:#101216;--card:#181b21;--ink:#e8eaee;--dim:#9aa3af;--line:#2a2f38;--mark:#56b4e9}}
*{box-sizing:border-box}
body{margin:0;background:var(--page);color:var(--ink);font:16px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,"Noto Sans",sans-serif;
font-variant-numeric:tabular-nums}
main{max-width:1120px;margin:0 auto;padding:40px 20px 56px}
h1{font-size:clamp(1.6rem,4.5vw,2.3rem);line-height:1.15;margin:.1em 0 .25em;overflow-wrap:anywhere;letter-spacing:-.015em}
h2{font-size:1.25rem;margin:0 0 .2em}
h3{font-size:1rem;margin:1.6em 0 .3em}
p{margin:.3em 0}
.over{text-transform:uppercase;letter-spacing:.09em;font-size:.75rem;font-weight:600;color:var(--dim)}
.dim{color:var(--dim);font-size:.9rem}
section{background:var(--card);border:1px solid var(--line);border-radius:12px;padding:20px 22px;margin:16px 0}
.note{border-left:4px solid var(--mark);font-size:.93rem}
.scroll{overflow-x:auto;margin-top:8px}
table{border-collapse:collapse;font-size:.9rem;width:100%}
th,td{text-align:right;padding:5px 0 5px 18px;border-bottom:1px solid var(--line);white-space:nowrap}
th:first-child,td:first-child{text-align:left;padding-left:0}
thead th{color:var(--dim);font-weight:500}
tbody th{font-weight:500}
.sum>*{font-weight:600}
.facts td{text-align:left;white-space:normal;overflow-wrap:anywhere;width:100%}
.plots{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,430px),1fr));gap:14px;margin-top:18px}
figure{margin:0;background:#fff;border:1px solid var(--line);border-radius:10px;padding:8px}
figure.wide{grid-column:1/-1}
img{display:block;width:100%;height:auto}
code{font-family:ui-monospace,SFMono-Regular,Menlo,Consolas,monospace;font-size:.86em;overflow-wrap:anywhere}
ul{padding-left:1.2em;margin:.4em 0}
li{margin:.25em 0}
@media(max-width:640px){main{padding:24px 12px 40px}section{padding:16px 14px}th,td{padding-left:9px}}
@media print{body{background:#fff}figure,table{break-inside:avoid}}
"""
_VIEWS = {"none": "single crop", "flip": "mean of a crop and its mirror image", "ten-crop": "mean of ten crops"}
_WORDS = (
    "<b>Accuracy</b>: share of faces whose most probable label is theirs. <b>Unseen</b>: without the images that also stand in Training, "
    "pixel for pixel. <b>Top-2</b>: theirs is among the two most probable.",
    "<b>F1</b>: harmonic mean of precision and recall. <b>Macro</b> averages weigh every label alike, <b>weighted</b> ones by its faces; "
    "a label that no face has stays out of both, and its own figures are “–”.",
    "<b>AUC</b>: chance that a face of the label gets more of its probability than one of another label.",
    "<b>ECE</b>: expected calibration error of the most probable label, 15 equal bins. <b>NLL</b>: mean negative log-likelihood. "
    "<b>Brier</b>: mean squared error over all labels, 0…2.",
    "<b>Risk–coverage</b>: the share of wrong answers when only the surest faces are answered; its area is their mean over all coverages.",
)


def page(report: Mapping[str, Any], pictures: Mapping[str, Mapping[str, tuple[str, bytes]]], notes: Sequence[str]) -> str:
    """`report`: what metrics.json holds. `pictures`: head, or "" for the run's own, -> {name: (what it shows, PNG)}. `notes`: sentences."""
    model, data, heads = report["model"], report["data"], report["heads"]
    parts = [
        f'<header><p class="over">Evaluation of an expression classifier</p><h1>{text(model["name"])}</h1>'
        f'<p class="dim">{text(data["split"])} of {text(data["name"])}, {data["faces"]:,} faces · '
        f"{_VIEWS[report['tta']]} · {text(report['made'])}</p></header>",
        f'<section class="note"><p>{LAW}</p></section>',
        _overview(heads),
        *(_head(head, found, pictures.get(head, {})) for head, found in heads.items()),
        f"<section><h2>Training</h2>{_figures(pictures[''])}</section>" if pictures.get("") else "",
        _facts("Model", model | {"labels": ", ".join(model["labels"])}),
        _facts("Data", data | {"notes": " · ".join(data["notes"]) or None}),
        "<section><h2>How it was measured</h2><ul>" + "".join(f"<li>{words}</li>" for words in (*_WORDS, *map(text, notes))) + "</ul>"
        f"<p>Made with <code>{text(report['command'])}</code>; every figure is also in <code>metrics.json</code>.</p></section>",
    ]
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width,initial-scale=1">'
        '<meta name="color-scheme" content="light dark"><meta name="generator" content="fer-stream">'
        f"<title>{text(model['name'])} – evaluation</title><style>{_STYLE}</style></head>"
        f"<body><main>{''.join(parts)}</main></body></html>\n"
    )


def text(value: object) -> str:
    return escape(str(value))


def short(value: float | None) -> str:
    """.823, as the project's tables have it; "–" for what is not defined."""
    return "–" if value is None else f"{value:.3f}".removeprefix("0")


def overview(heads: Mapping[str, Mapping[str, Any]]) -> list[tuple[str, list[str]]]:
    """The main figures as rows of text: (measure, one value per head)."""
    nothing = dict.fromkeys(("threshold", "coverage", "accuracy"))
    at = {head: found["risk_coverage"]["uncertain"] or nothing for head, found in heads.items()}
    columns = {
        "faces judged": lambda h, f: f"{f['faces']:,}",
        "accuracy": lambda h, f: short(f["accuracy"]),
        "accuracy, unseen": lambda h, f: short(f["accuracy_unseen"]),
        "top-2 accuracy": lambda h, f: short(f["top2_accuracy"]),
        "macro F1": lambda h, f: short(f["macro"]["f1"]),
        "macro AUC": lambda h, f: short(f["macro_auc"]),
        "ECE": lambda h, f: short(f["ece"]),
        "NLL": lambda h, f: short(f["nll"]),
        "Brier": lambda h, f: short(f["brier"]),
        "area under risk–coverage": lambda h, f: short(f["risk_coverage"]["area"]),
        "answers from a probability of": lambda h, f: short(at[h]["threshold"]),
        "share answered": lambda h, f: short(at[h]["coverage"]),
        "accuracy of those": lambda h, f: short(at[h]["accuracy"]),
    }
    return [(name, [value(head, found) for head, found in heads.items()]) for name, value in columns.items()]


def _overview(heads: Mapping[str, Any]) -> str:
    rows = "".join(_row(name, values) for name, values in overview(heads))
    against = "".join(f"<li>Head <b>{text(head)}</b> is judged by {text(found['against'])}.</li>" for head, found in heads.items())
    return f"<section><h2>In short</h2>{_table(('', *heads), rows)}<ul class=dim>{against}</ul></section>"


def _head(head: str, found: Mapping[str, Any], pictures: Mapping[str, tuple[str, bytes]]) -> str:
    rows = "".join(
        _row(label, [*(short(row[name]) for name in ("precision", "recall", "f1", "auc")), f"{row['support']:,}"])
        for label, row in found["labels"].items()
    )
    for kind, area in (("macro", found["macro_auc"]), ("weighted", None)):
        averages = [short(found[kind][name]) for name in ("precision", "recall", "f1")]
        rows += _row(f"{kind} average", [*averages, short(area) if area is not None else "", f"{found['faces']:,}"], "sum")
    left = found["faces_without_truth"]
    words = f"{found['faces']:,} faces, judged by {found['against']}" + (f"; {left:,} faces without one are left out" if left else "")
    confusion = found["confusion"]
    counts = "".join(_row(label, [f"{n:,}" for n in row]) for label, row in zip(confusion["labels"], confusion["counts"], strict=True))
    return (
        f'<section><h2>Head {text(head)}</h2><p class="dim">{text(words)}.</p>'
        f"{_table(('label', 'precision', 'recall', 'F1', 'AUC', 'faces'), rows)}"
        f"<h3>Confusion matrix: {confusion['rows']} in rows, {confusion['columns']} in columns</h3>"
        f"{_table(('true ↓  predicted →', *confusion['labels']), counts)}{_figures(pictures)}</section>"
    )


def _figures(pictures: Mapping[str, tuple[str, bytes]]) -> str:
    wide = ("misclassified", "gradcam", "training")
    images = "".join(
        f'<figure{" class=wide" if name.startswith(wide) else ""}>'
        f'<img alt="{text(words)}" src="data:image/png;base64,{base64.b64encode(data).decode()}"></figure>'
        for name, (words, data) in pictures.items()
    )
    return f'<div class="plots">{images}</div>' if images else ""


def _facts(title: str, facts: Mapping[str, Any]) -> str:
    known = {name.replace("_", " "): _said(value) for name, value in facts.items() if value is not None}
    rows = "".join(f"<tr><th>{text(name)}</th><td>{text(value)}</td></tr>" for name, value in known.items())
    return f'<section><h2>{title}</h2><div class="scroll"><table class="facts"><tbody>{rows}</tbody></table></div></section>'


def _said(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_said(one)}" for name, one in value.items())
    return f"{value:,}" if isinstance(value, int) else str(value)


def _row(name: str, values: Sequence[str], kind: str = "") -> str:
    return f"<tr{f' class={kind}' if kind else ''}><th>{text(name)}</th>{''.join(f'<td>{text(value)}</td>' for value in values)}</tr>"


def _table(heads: Sequence[str], rows: str) -> str:
    head = "".join(f"<th>{text(name)}</th>" for name in heads)
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>'
