"""FFmpeg's own log lines: none."""

from __future__ import annotations

import av


def silence_ffmpeg() -> None:
    """Called where a container is opened. None, never a level, not even PANIC: with a level PyAV 18 takes the GIL in its log
    callback for every line, to keep the last error; a decoder thread that logs while another thread frees the decoder (which
    waits for that thread with the GIL held) is a deadlock. Seen in 3 of 3 runs that left a file early after a seek; none since.
    """
    av.logging.set_level(None)
