"""The project's tree of errors. Every message is one sentence: what, got, expected, what to do.

    FerError                  anything that is said to the user without a traceback; `exit_code` is the process's
    ├── UsageError            the command, the configuration or an argument is wrong (exit code 2)
    ├── ModelError            a model file is missing, corrupt, hostile, or not what its manifest says (1)
    ├── EngineError           a backend cannot run what was asked of it on this machine (1)
    └── pipeline.errors …     run-time errors of video
"""

from __future__ import annotations


class FerError(Exception):
    """Base of everything that is said to the user in one sentence."""

    exit_code = 1


class UsageError(FerError, ValueError):
    """What was asked for makes no sense; nothing was started."""

    exit_code = 2


class ModelError(FerError):
    """A model file cannot be trusted or read."""


class EngineError(FerError):
    """A backend is missing, or fails on this machine."""
