"""The CUDA driver through ctypes: memory, one stream, copies. What running an engine takes, without torch or cuda-python.

The driver's API is there wherever a GPU is; names and signatures are those of NVIDIA's cuda.h. Each call that fails becomes an
EngineError with CUDA's own words.
"""

from __future__ import annotations

import contextlib
import ctypes
from collections.abc import Callable, Iterator
from ctypes import byref, c_char_p, c_int, c_size_t, c_ulonglong, c_void_p
from typing import Any

import numpy as np

from engines.errors import EngineError

_MAJOR, _MINOR = 75, 76
"""CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, _MINOR."""
_NON_BLOCKING = 1
"""CU_STREAM_NON_BLOCKING: does not wait for the default stream, which torch may be using."""

_THREAD_LOCAL = 1
"""CU_STREAM_CAPTURE_MODE_THREAD_LOCAL: what other threads do on the GPU meanwhile does not break a recording."""


class Cuda:
    """One GPU: its primary context and a stream of our own in it. Calls must be made inside `with cuda.current():`."""

    def __init__(self, ordinal: int = 0) -> None:
        self._driver = _load()
        self._device = c_int()
        self._call("cuInit", 0)
        self._call("cuDeviceGet", byref(self._device), ordinal)
        self._context = c_void_p()
        self._call("cuDevicePrimaryCtxRetain", byref(self._context), self._device)
        self._stream = c_void_p()
        with self.current():
            self._call("cuStreamCreate", byref(self._stream), _NON_BLOCKING)

    @property
    def stream(self) -> int:
        """Its handle, as other libraries take it."""
        return int(self._stream.value or 0)

    @property
    def name(self) -> str:
        """"NVIDIA L4", …"""
        text = ctypes.create_string_buffer(256)
        self._call("cuDeviceGetName", text, len(text), self._device)
        return text.value.decode(errors="replace")

    @property
    def compute_capability(self) -> str:
        """"8.9", …"""
        value = c_int()
        numbers = []
        for attribute in (_MAJOR, _MINOR):
            self._call("cuDeviceGetAttribute", byref(value), attribute, self._device)
            numbers.append(str(value.value))
        return ".".join(numbers)

    @property
    def driver(self) -> str:
        """Newest CUDA version that the driver knows: "12.8", …"""
        version = c_int()
        self._call("cuDriverGetVersion", byref(version))
        return f"{version.value // 1000}.{version.value % 1000 // 10}"

    @contextlib.contextmanager
    def current(self) -> Iterator[None]:
        """Makes the context this thread's for a while: it is a property of threads, and each call may come from another one."""
        self._call("cuCtxPushCurrent_v2", self._context)
        try:
            yield
        finally:
            self._call("cuCtxPopCurrent_v2", byref(c_void_p()))

    def device_memory(self, size: int) -> int:
        """Address of `size` bytes on the GPU; free_device() returns them."""
        address = c_void_p()
        self._call("cuMemAlloc_v2", byref(address), c_size_t(size))
        return int(address.value or 0)

    def free_device(self, address: int) -> None:
        self._call("cuMemFree_v2", c_void_p(address))

    def page_locked(self, size: int) -> tuple[np.ndarray, int]:
        """(size,) uint8 of page-locked memory, which the GPU copies from and to by itself, and its address for free_host()."""
        address = c_void_p()
        self._call("cuMemHostAlloc", byref(address), c_size_t(size), 0)
        buffer = (ctypes.c_uint8 * size).from_address(int(address.value or 0))
        return np.ctypeslib.as_array(buffer), int(address.value or 0)

    def free_host(self, address: int) -> None:
        self._call("cuMemFreeHost", c_void_p(address))

    def copy_in(self, device: int, host: int, size: int) -> None:
        """Page-locked memory to the GPU, in the stream's order."""
        self._call("cuMemcpyHtoDAsync_v2", c_void_p(device), c_void_p(host), c_size_t(size), self._stream)

    def copy_out(self, host: int, device: int, size: int) -> None:
        self._call("cuMemcpyDtoHAsync_v2", c_void_p(host), c_void_p(device), c_size_t(size), self._stream)

    def record(self, run: Callable[[], None]) -> int:
        """A CUDA graph of what `run` asks of this stream, which is recorded and not done; launch() does it in one call."""
        graph, executable = c_void_p(), c_void_p()
        self._call("cuStreamBeginCapture_v2", self._stream, _THREAD_LOCAL)
        try:
            run()
        finally:
            self._call("cuStreamEndCapture", self._stream, byref(graph))  # else the stream could never be used again
        try:
            self._call("cuGraphInstantiateWithFlags", byref(executable), graph, c_ulonglong(0))
        finally:
            self._call("cuGraphDestroy", graph)
        return int(executable.value or 0)

    def launch(self, graph: int) -> None:
        self._call("cuGraphLaunch", c_void_p(graph), self._stream)

    def free_graph(self, graph: int) -> None:
        self._call("cuGraphExecDestroy", c_void_p(graph))

    def wait(self) -> None:
        """Until all that was asked of the stream is done."""
        self._call("cuStreamSynchronize", self._stream)

    def close(self) -> None:
        """Frees the stream and lets go of the context; idempotent."""
        if self._context.value is None:
            return
        with self.current():
            self._call("cuStreamDestroy_v2", self._stream)
        self._call("cuDevicePrimaryCtxRelease_v2", self._device)
        self._context = c_void_p()

    def _call(self, name: str, *arguments: Any) -> None:
        code = getattr(self._driver, name)(*arguments)
        if code:
            text = c_char_p()
            self._driver.cuGetErrorString(code, byref(text))
            raise EngineError(f"CUDA failed in {name} ({(text.value or b'error ' + str(code).encode()).decode()}); check nvidia-smi")


def _load() -> Any:
    for library in ("libcuda.so.1", "nvcuda.dll"):
        with contextlib.suppress(OSError):
            return ctypes.CDLL(library)
    raise EngineError("no NVIDIA driver is installed here, so no GPU can be used; use device cpu")
