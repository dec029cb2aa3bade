"""Lists of sources: NAME.streams, a source a line, as `--source` takes it.

    # the entrance and yesterday's recordings
    rtsp://viewer:secret@10.0.0.7/stream
    recordings/*.mp4

Paths are counted from the list's own folder, as in playlists, so that a list can be called from anywhere. Standard library only.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from pipeline.errors import UsageError

LIST_SUFFIX = ".streams"
_NO_PATH = re.compile(r"(?i)-|demo|[0-9]{1,3}|lavfi:.*|[a-z][a-z0-9+.-]+://.*")


def lines_of(path: str) -> list[tuple[int, str]]:
    """(line number from 1, source) of each line that names one: without blank lines and those that begin with #."""
    try:
        lines = Path(path).read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is no UTF-8 text"
        raise UsageError(f"the list of sources {path} cannot be read: {reason}; expected one source a line") from error
    found = []
    for number, line in enumerate(lines, 1):
        text = line.strip()
        if text and not text.startswith("#"):
            found.append((number, text if _NO_PATH.fullmatch(text) else os.path.join(os.path.dirname(path), text)))
    if not found:
        raise UsageError(f"the list of sources {path} names none; expected one source a line, # before comments")
    return found
