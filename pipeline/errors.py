"""Run-time errors of video, on top of engines.errors.

    FerError
    ├── SourceError           an input cannot be opened, or ends in a fault
    ├── SinkError             an output cannot be written (full disk, no permission, unknown format)
    └── StageError            the first real error of a run, with its stage's name and its cause
"""

from __future__ import annotations

from engines.errors import EngineError, FerError, ModelError, UsageError

__all__ = ["EngineError", "FerError", "ModelError", "SinkError", "SourceError", "StageError", "UsageError"]


class SourceError(FerError):
    """An input cannot be opened or read; the URL in the text is redacted."""


class SinkError(FerError):
    """An output cannot be written; what is already written stays."""


class StageError(FerError):
    """A stage failed. `stage` is its name, `__cause__` the error itself."""

    def __init__(self, stage: str, cause: BaseException) -> None:
        # A sentence of ours says what and where; a foreign error needs the stage's name.
        super().__init__(str(cause) if isinstance(cause, FerError) else f"{stage} failed: {type(cause).__name__}: {cause}")
        self.stage = stage
        self.__cause__ = cause
        if isinstance(cause, FerError):
            self.exit_code = cause.exit_code
