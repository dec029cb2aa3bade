"""`fer-build`: what models and backends there are, and how models are made. Small for now; each command teaches by example."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from engines.errors import FerError, UsageError


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def cli() -> None:
    """Models and engines of fer-stream.

    \b
    fer-build list                                         what is shipped, what this machine can run
    fer-build export detector best.pt -o my_faces.onnx     a YOLO checkpoint of your own as ONNX
    fer-stream --source film.mp4 --detector my_faces.onnx     and its use
    """


@cli.command("list")
def list_() -> None:
    """Shown: the shipped models (verified against their SHA-256), the backends, and what `auto` chooses here."""
    from engines import manifest, select

    click.echo("models")
    for entry in manifest.shipped().values():
        try:
            state = "ok" if entry.digest == entry.sha256 else "CHANGED, will not be loaded"
            size = f"{entry.path.stat().st_size / 1e6:.1f} MB"
        except FerError:
            state, size = "MISSING", "-"
        default = " (default)" if manifest.DEFAULTS.get(entry.task) == entry.name else ""
        click.echo(f"  {entry.name:<16} {entry.task:<11} {size:>8}  {entry.licence}  sha256 {entry.sha256[:12]}  {state}{default}")
    click.echo("backends")
    for name, (_, _, how) in select.BACKENDS.items():
        if name != "fake":
            there = "not there yet" if name == "tensorrt" else "installed" if select.installed(name) else f"not installed: {how}"
            click.echo(f"  {name:<16} {there}")
    click.echo(f"GPUs: {select.gpu_count()}")
    try:
        choice = select.choose()
        click.echo(f"auto: {choice.backend} on {choice.device} ({choice.reason})")
    except FerError as error:
        click.echo(f"auto: {error}")


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


if __name__ == "__main__":
    main()
