"""`fer-train evaluate`: how good a model is, as figures and as a report."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import click

from engines.errors import UsageError
from trainer.kaggle import data_option


@click.command()
@click.option("--model", required=True, help="A shipped name, an engine's file (.onnx, .xml, .engine), or the folder of a run.")
@data_option
@click.option("--split", default="PublicTest", show_default=True, help="Training, PublicTest, PrivateTest, or all.")
@click.option("--head", help="Only this head: crowd (judged by the FER+ majority) or fer2013 (by the original labels). Default: all.")
@click.option("--report", type=click.Path(path_type=Path, file_okay=False), help="Folder for index.html, metrics.json and the pictures.")
@click.option("--no-faces", is_flag=True, help="No picture of the data in the report: it may be published where the data may not.")
@click.option("--label-map", default="", metavar="OLD=NEW,…", help="Another data set's classes as the model's labels; OLD= leaves one out.")
@click.option("--tta", type=click.Choice(["none", "flip", "ten-crop"]), default="none", show_default=True, help="Views to average over.")
@click.option("--limit", type=click.IntRange(1), help="Judge so many faces only, evenly spread.")
@click.option("--backend", default="auto", show_default=True, help="Of an engine: auto, openvino, onnxruntime, torch, …")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N.")
@click.option("--precision", help="f32, bf16 or f16, where the backend has them; what it would choose itself if not given.")
@click.option("--json", "as_json", is_flag=True, help="All figures as one JSON object on standard output.")
@click.pass_context
def evaluate_command(ctx: click.Context, **options: Any) -> None:
    """Judge a model on labelled faces: accuracy, F1, calibration, what it costs to abstain.

    The same figures come from a run and from every engine made of it, so that what quantisation loses can be seen. Inferring
    emotions of people at work or in education is prohibited in the EU (AI Act, Art. 5(1)(f)).

    \b
    Examples:
      fer-train evaluate --model emotion_cnn --data fer2013.npz
      fer-train evaluate --model emotion_cnn_int8 --data fer2013.npz --head crowd --json
      fer-train evaluate --model ~/.cache/fer-runs/emotion_cnn --data fer2013.npz --report out/report
      fer-train evaluate --model emotion_cnn --data ckplus/ --split all --label-map contempt= --tta flip
    """
    import json

    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        report, files = _evaluate(progress, _command(ctx), **options)
    if options["as_json"]:
        click.echo(json.dumps(report, ensure_ascii=False))
    else:
        click.echo(_text(report))
    if files:
        click.echo(f"report: {files[-1]}", err=options["as_json"])


def _evaluate(
    progress: Any, command: str, *, model: str, data: Path, split: str, head: str | None, report: Path | None, no_faces: bool,
    label_map: str, tta: str, limit: int | None, backend: str, device: str, precision: str | None, as_json: bool,
) -> tuple[dict[str, Any], list[Path]]:  # fmt: skip
    """What metrics.json holds, and the files of the report."""
    from datetime import UTC, datetime

    from trainer.figures import parse_label_map
    from trainer.judge import judge, read_faces
    from trainer.predictor import load_predictor
    from trainer.report import write_report

    if no_faces and report is None:
        raise UsageError("--no-faces is about the pictures of a report; give its folder with --report")
    mapping = parse_label_map(label_map)
    step = progress.add_task(f"loading {model}", total=None)
    predictor = load_predictor(model, head=head, backend=backend, device=device, precision=precision)
    progress.update(step, description=f"reading {data.name}")
    faces, notes = read_faces(data, split, size=predictor.face_size, colour=predictor.colour, label_map=mapping, limit=limit)
    for note in notes:
        progress.console.print(f"note: {note}", markup=False, highlight=False, soft_wrap=True)
    judged = []
    for name in predictor.heads:
        progress.update(step, description=f"judging {name}", total=len(faces), completed=0)
        judged.append(judge(predictor, faces, name, tta=tta, label_map=mapping, advance=lambda n: progress.advance(step, n)))
    window = f"{predictor.input_size} × {predictor.input_size} px, {predictor.colour}"
    about = {
        "name": predictor.name, "sha256": predictor.sha256, "input": window,
        "labels": list(predictor.labels), **predictor.facts,
    }  # fmt: skip
    counts = {label: int((faces.label == k).sum()) for k, label in enumerate(faces.classes)}
    of_data = {
        "name": data.resolve().name, "split": split, "faces": len(faces), "faces_by_own_label": counts, "limit": limit,
        "label_map": mapping or None, "notes": notes,
    }  # fmt: skip
    found = {
        "model": about, "data": of_data, "tta": tta, "command": command, "made": f"{datetime.now(UTC):%Y-%m-%d}",
        "heads": {one.head: one.figures for one in judged},
    }  # fmt: skip
    if report is None:
        return found, []
    progress.update(step, description="drawing", total=None)
    say = lambda words: progress.update(step, description=words)  # noqa: E731
    return found, write_report(report, found, judged, faces=not no_faces, predictor=predictor, say=say)


def _command(ctx: click.Context) -> str:
    """The command line that repeats this one."""
    given = ["fer-train", "evaluate"]
    for option in ctx.command.params:
        if ctx.get_parameter_source(option.name or "") == click.core.ParameterSource.COMMANDLINE:
            value = ctx.params[option.name or ""]
            given += [option.opts[0]] if value is True else [option.opts[0], str(value)]
    return shlex.join(given)


def _text(report: dict[str, Any]) -> str:
    from trainer.report_page import overview

    heads = report["heads"]
    lines = [("", list(heads)), *overview(heads)]
    lines += [(f"F1 {label}", [_f1(found, label) for found in heads.values()]) for label in report["model"]["labels"]]
    return "\n".join(f"{name:32s}" + "".join(f"{value:>10s}" for value in values) for name, values in lines)


def _f1(found: dict[str, Any], label: str) -> str:
    from trainer.report_page import short

    return short(found["labels"][label]["f1"])
