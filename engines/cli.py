"""`fer-build`: what models and backends there are, how fast they are, and how models are made. Each command teaches by example."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from engines.errors import FerError, UsageError


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def cli() -> None:
    """Models and engines of fer-stream.

    \b
    fer-build list                                         what is shipped, what this machine can run, how fast
    fer-build compare                                      every backend and precision, beside each other
    fer-build engine yolo11n_face --backend tensorrt       a model built for one backend, checked against fp32
    fer-build export detector best.pt -o my_faces.onnx     a YOLO checkpoint of your own as ONNX
    fer-stream --source film.mp4 --detector my_faces.onnx     and its use
    """


@cli.command("list")
@click.option("--no-speed", is_flag=True, help="Leave out the measuring: milliseconds instead of seconds.")
def list_(no_speed: bool) -> None:
    """Shown: the shipped models (verified against their SHA-256), the backends, what `auto` chooses, and how fast each is here."""
    from engines import manifest, select

    defaults = tuple(select.default_model(task) for task in manifest.TASKS)
    click.echo("models")
    for entry in manifest.shipped().values():
        try:
            state = "ok" if entry.digest == entry.sha256 else "CHANGED, will not be loaded"
            size = f"{entry.size / 1e6:.1f} MB"
        except FerError:
            state, size = "MISSING", "-"
        default = " (default)" if entry.name in defaults else ""
        click.echo(f"  {entry.name:<18} {entry.task:<11} {size:>8}  {entry.licence}  sha256 {entry.sha256[:12]}  {state}{default}")
    click.echo("backends")
    for name, (_, _, how) in select.BACKENDS.items():
        if name != "fake":
            click.echo(f"  {name:<18} {'installed' if select.installed(name) else f'not installed: {how}'}")
    click.echo(f"GPUs: {select.gpu_count()}")
    try:
        choice = select.choose()
        click.echo(f"auto: {choice.backend} on {choice.device} ({choice.reason})")
    except FerError as error:
        click.echo(f"auto: {error}")
    if not no_speed:
        from engines.build.compare import compare, processor
        from engines.cli_table import text_of

        click.echo(f"speed here ({processor()})")
        rows = compare(batches=(1,), models=defaults, deviations=False, budget_s=1.5)
        click.echo(text_of(rows, brief=True), nl=False)


@cli.command("compare")
@click.option("--data", type=click.Path(path_type=Path), help="Folder with faces_val.tar and fer2013.npz: adds AP50 and accuracy.")
@click.option("--model", "models", multiple=True, help="Only this shipped model; may be repeated.")
@click.option("--threads", type=click.IntRange(1), help="CPU threads; the backend's own choice where not given.")
@click.option("--json", "as_json_", is_flag=True, help="JSON on standard output instead of a table.")
def compare_(data: Path | None, models: tuple[str, ...], threads: int | None, as_json_: bool) -> None:
    """Every backend and precision of this machine: ms per image at batch 1, 4, 8, 16, deviation from fp32, accuracy, size.

    \b
    fer-build compare
    fer-build compare --data ../shared/data --json > engines.json
    """
    import json

    from engines import manifest
    from engines.build.compare import as_json, compare
    from engines.cli_table import saying, text_of

    unknown = set(models) - set(manifest.shipped())
    if unknown:
        raise UsageError(f"unknown model {', '.join(sorted(unknown))}; shipped: {', '.join(manifest.shipped())}")
    with saying() as say:
        rows = compare(data=data, models=models, threads=threads, say=say)
    click.echo(json.dumps(as_json(rows), indent=2) if as_json_ else text_of(rows), nl=as_json_)


@cli.command("engine")
@click.argument("model")
@click.option("--backend", required=True, type=click.Choice(["onnx", "openvino", "tensorrt", "tensorrt-rtx", "torch"]))
@click.option("--precision", type=click.Choice(["fp32", "fp16", "int8"]), default="fp16", show_default=True)
@click.option("--batch", default="1:1:8", show_default=True, help="MIN:OPT:MAX, or one number; TensorRT only, the others take any.")
@click.option("--imgsz", type=click.IntRange(32), help="Longest side of a detector's input, pixels; TensorRT only.")
@click.option("--calibration", type=click.Path(path_type=Path), help="Folder of training images, for int8.")
@click.option("--data", type=click.Path(path_type=Path), help="Folder of labelled images: the engine may not lose accuracy on it.")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="MODEL_PRECISION in the current folder where not given.")
@click.option("--overwrite", is_flag=True, help="Replace a file that is there.")
@click.option(
    "--rebuild", type=click.Choice(["never", "auto"]), default="never", show_default=True,
    help="auto: keep an output that fits this machine and this command, and build it anew where it does not, saying why.",
)
@click.option(
    "--timing-cache", type=click.Path(dir_okay=False, path_type=Path),
    help="File of TensorRT's measurements, which makes the next build faster; beside the output where not given.",
)
@click.option("--ship", "ships", is_flag=True, help="For this project: also put it among the shipped models, as NAME_PRECISION.")
def engine(
    model: str, backend: str, precision: str, batch: str, imgsz: int | None, calibration: Path | None, data: Path | None,
    output: Path | None, overwrite: bool, rebuild: str, timing_cache: Path | None, ships: bool,
) -> None:
    """MODEL (a shipped name or an .onnx) for one backend in one precision, checked against fp32 before it is written.

    \b
    fer-build engine yolo11n_face --backend tensorrt --precision fp16 --batch 1:4:16
    fer-build engine emotion_cnn --backend onnx --precision int8 --calibration ../shared/data
    fer-build engine my_faces.onnx --backend openvino --precision fp32 -o my_faces.xml
    fer-build engine yolo11n_face --backend tensorrt -o ~/.cache/fer-engines/yolo11n_face.engine --rebuild auto

    A TensorRT engine in ~/.cache/fer-engines, or in the folder that FER_ENGINES names, is what backend auto takes for its model.
    """
    from engines.build.engine import build_engine
    from engines.cli_table import saying

    try:
        sizes = tuple(int(part) for part in batch.split(":"))
    except ValueError as error:
        raise UsageError(f"--batch must be MIN:OPT:MAX or one number, got {batch!r}; for example 1:4:16") from error
    if len(sizes) not in (1, 3):
        raise UsageError(f"--batch must be MIN:OPT:MAX or one number, got {batch!r}; for example 1:4:16")
    if ships and data is None:
        raise UsageError("--ship measures the figures that go into the manifest; give the labelled images with --data")
    low, usual, high = sizes * 3 if len(sizes) == 1 else sizes
    with saying() as say:
        built = build_engine(
            model, backend=backend, precision=precision, batch=(low, usual, high), imgsz=imgsz, calibration=calibration, data=data,
            output=output, overwrite=overwrite, rebuild=rebuild, timing_cache=timing_cache, say=say,
        )  # fmt: skip
    click.echo(f"{built.path}: {built.size / 1e6:.1f} MB in {built.seconds:.0f} s")
    found = built.parity
    click.echo(
        f"beside fp32, {found.samples} images: deviation {found.mean_deviation:.4f} in the mean, {found.max_deviation:.4f} at most, "
        f"agreement {found.agreement:.1%}" + (f", boxes {found.pixels:.2f} px" if found.pixels is not None else "")
    )
    for name, (reference, score) in found.scores.items():
        click.echo(f"  {name}: {reference:.4f} -> {score:.4f}")
    if built.note:
        click.echo(built.note)
    if ships:
        from engines.build.ship import ship

        assert data is not None
        click.echo(f"shipped as {ship(built.path, data).name}")


@cli.group()
def export() -> None:
    """Makes a model that every backend reads.

    \b
    fer-build export detector best.pt -o my_faces.onnx
    """


@export.command("detector")
@click.argument("checkpoint", type=click.Path(path_type=Path))
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Where the .onnx goes; beside the checkpoint where not given.")
@click.option("--overwrite", is_flag=True, help="Replace a file that is there.")
def export_detector(checkpoint: Path, output: Path | None, overwrite: bool) -> None:
    """A face detector's Ultralytics CHECKPOINT (.pt, one class) as ONNX.

    A checkpoint is a pickle: reading it runs whatever code it holds, so only give one that you made or trust.

    \b
    fer-build export detector best.pt
    fer-build export detector best.pt -o my_faces.onnx --overwrite
    """
    from engines.build.onnx_from_checkpoint import onnx_from_checkpoint

    output = output or checkpoint.with_suffix(".onnx")
    if output.suffix.lower() != ".onnx":
        raise UsageError(f"a detector is exported as .onnx, got {output.name}; give such a name with --output")
    if output.exists() and not overwrite:
        raise UsageError(f"{output} exists; give another --output, or --overwrite")
    if not output.parent.is_dir():
        raise UsageError(f"the folder {output.parent} does not exist; make it first, or give another --output")
    onnx_from_checkpoint(checkpoint, output, metadata={"labels": "face", "task": "detector"})
    click.echo(f"{output}: {output.stat().st_size / 1e6:.1f} MB; use it with: fer-stream --detector {output}")


def main() -> None:
    """Entry point; what is the user's to know is one sentence on stderr and an exit code."""
    try:
        cli()
    except FerError as error:
        click.echo(f"fer-build: {error}", err=True)
        sys.exit(error.exit_code)
    except OSError as error:  # a full disk, a folder of somebody else's
        file, reason = error.filename or "a file", error.strerror or error
        click.echo(f"fer-build: cannot read or write {file} ({reason}); make room, or give another", err=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
