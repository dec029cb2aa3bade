"""Nothing is reported to anyone: no connection, no name looked up, no id left behind, with the back-ends that would."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from engines.select import installed
from engines.silent import import_silently

RUN = """
import sys
from pathlib import Path
told = Path(sys.argv[1])

def heard(event, arguments):
    if event.startswith(("socket.connect", "socket.getaddrinfo", "os.fork", "os.posix_spawn", "subprocess")):
        with told.open("a") as log:
            print(event, arguments, file=log)

sys.addaudithook(heard)  # a forked process has it, too
import numpy as np
from engines import load_classifier, load_detector
load_detector(backend=sys.argv[2]).detect([np.zeros((64, 64, 3), np.uint8)])
load_classifier(backend=sys.argv[2]).classify([np.zeros((64, 64), np.uint8)])
"""


@pytest.mark.parametrize("backend", ["openvino", "onnxruntime"])
def test_a_run_says_nothing_and_leaves_nothing(backend: str, tmp_path: Path) -> None:
    if not installed(backend):
        pytest.skip(f"{backend} is not installed")
    home, temporary, told = tmp_path / "home", tmp_path / "tmp", tmp_path / "told.txt"
    home.mkdir()
    temporary.mkdir()
    variables = {k: v for k, v in os.environ.items() if k not in ("CI", "ORT_DISABLE_TELEMETRY", "XDG_CACHE_HOME")}
    variables |= {"HOME": str(home), "TMPDIR": str(temporary), "PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, "-c", RUN, str(told), backend], check=True, env=variables, timeout=120)
    assert not told.exists(), told.read_text()
    assert [*home.rglob("*"), *temporary.rglob("*")] == []


def test_what_the_user_wants_reported_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORT_DISABLE_TELEMETRY", "0")
    assert import_silently("json").loads("1") == 1
    assert os.environ["ORT_DISABLE_TELEMETRY"] == "0"
    assert "openvino_telemetry" not in sys.modules
    with pytest.raises(ImportError):
        import_silently("no_such_package")
