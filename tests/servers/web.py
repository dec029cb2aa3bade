"""HTTP servers for tests, on a free port of the loopback, each client served by a thread of its own.

    with web(handle) as url:        `handle(request)` answers every GET; a client that leaves is no error
    with web(handle, pem) as url:   the same over TLS; self_signed(folder) makes such a file of key and certificate
    files(folder)                   such a handle: the files of a folder
    mjpeg(pictures, pause_s)        another: a camera that sends JPEGs one after the other
"""

from __future__ import annotations

import http.server
import shutil
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

Request = http.server.BaseHTTPRequestHandler
Handle = Callable[[Request], None]


@contextmanager
def web(handle: Handle, pem: Path | None = None) -> Iterator[str]:
    """http://127.0.0.1:PORT, or https:// with `pem`, until the block ends."""

    class Handler(Request):
        protocol_version = "HTTP/1.0"

        def do_GET(self) -> None:
            try:
                handle(self)
            except (BrokenPipeError, ConnectionResetError):
                self.close_connection = True

        def log_message(self, *_: object) -> None:
            return

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    if pem:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(pem)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"http{'s' if pem else ''}://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def self_signed(folder: Path) -> Path:
    """As cameras have it: a key with a certificate that nobody vouches for."""
    if shutil.which("openssl") is None:
        pytest.skip("needs openssl to make a certificate")
    pem = folder / "server.pem"
    new = ("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=127.0.0.1")
    subprocess.run(["openssl", *new, "-keyout", pem, "-out", folder / "certificate"], check=True, capture_output=True)
    pem.write_text(pem.read_text() + (folder / "certificate").read_text())
    return pem


def files(folder: Path) -> Handle:
    def handle(request: Request) -> None:
        path = folder / request.path.partition("?")[0].strip("/")
        request.send_response(200 if path.is_file() else 404)
        request.end_headers()
        if path.is_file():
            request.wfile.write(path.read_bytes())

    return handle


def mjpeg(pictures: Iterable[bytes], pause_s: float) -> Handle:
    """`pictures`: JPEGs, gone through anew for each client; the answer ends after the last."""

    def handle(request: Request) -> None:
        request.send_response(200)
        request.send_header("Content-Type", "multipart/x-mixed-replace; boundary=part")
        request.end_headers()
        tick = threading.Event()
        for picture in pictures:
            request.wfile.write(b"--part\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n" % len(picture) + picture + b"\r\n")
            tick.wait(pause_s)

    return handle
