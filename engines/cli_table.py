"""How `fer-build` shows its progress and its tables."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from engines.build.compare import Row


@contextlib.contextmanager
def saying() -> Iterator[Callable[[str], None]]:
    """Gives a function that says what is going on: a spinner in a terminal, lines on standard error elsewhere."""
    from rich.console import Console

    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda text: console.print(text, style=None, markup=False, highlight=False, soft_wrap=True)
        return
    with console.status("") as status:
        yield lambda text: status.update(text)


def text_of(rows: Sequence[Row], *, brief: bool = False) -> str:
    """The table as text, as wide as it needs; `brief`: no deviations and accuracies. What could not run stands below it."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    batches = sorted({batch for row in rows for batch in row.ms})
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("model")
    table.add_column("backend")
    table.add_column("precision")
    heads = [*(f"ms/image, batch {batch}" for batch in batches), "load s"]
    if not brief:
        heads += ["size MB", "mean dev.", "max dev.", "agreement", "accuracy / AP50"]
    for head in heads:
        table.add_column(head, justify="right")
    for row in rows:
        if not row.ms:
            continue
        cells = [*(f"{row.ms[batch]:.2f}" for batch in batches), f"{row.load_s:.2f}"]
        if not brief:
            numbers = ((row.mean_deviation, ".4f"), (row.max_deviation, ".4f"), (row.agreement, ".1%"), (row.score, ".4f"))
            cells += [f"{row.size_mb:.1f}", *("-" if value is None else format(value, form) for value, form in numbers)]
        table.add_row(row.model, row.backend, row.precision, *cells)
    out = io.StringIO()
    Console(file=out, width=200).print(table)
    for row in rows:
        if row.problem:
            out.write(f"  {row.model} {row.backend} {row.precision}: {row.problem}\n")
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines()) + "\n"
