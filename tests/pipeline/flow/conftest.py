"""Threads that tests start, and waiting for a state without sleeping for a time."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import pytest


@pytest.fixture
def start() -> Callable[..., Future[Any]]:
    """`start(f, *args)` runs it on a daemon thread and returns its future: `.result(10)`, `.exception(10)`."""

    def run(call: Callable[..., Any], *args: Any) -> Future[Any]:
        future: Future[Any] = Future()

        def body() -> None:
            try:
                result = call(*args)
            except BaseException as error:
                future.set_exception(error)
            else:
                future.set_result(result)

        threading.Thread(target=body, daemon=True).start()
        return future

    return run


@pytest.fixture
def eventually() -> Callable[[Callable[[], Any]], None]:
    """Yield the processor until the predicate holds; the limit only ends a test that has failed."""

    def wait(predicate: Callable[[], Any]) -> None:
        limit = time.monotonic() + 20
        while not predicate():
            assert time.monotonic() < limit, "it never happened"
            time.sleep(0)

    return wait
