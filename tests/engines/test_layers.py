"""engines is the lowest layer, and light to import."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FILES = sorted((ROOT / "engines").rglob("*.py"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_engines_imports_nothing_above_it(path):
    for node in ast.walk(ast.parse(path.read_text())):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        assert not {name.split(".")[0] for name in names} & {"pipeline", "trainer", "benchmarks"}


def test_importing_engines_loads_nothing_heavy():
    code = (
        "import sys, engines, engines.errors, engines.contract, engines.manifest, engines.cli, engines.select, engines.backends.base\n"
        "print(sorted({'torch', 'openvino', 'cv2', 'supervision', 'onnxruntime', 'av', 'matplotlib'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.strip() == "[]"


def test_an_unknown_name_is_an_attribute_error():
    import engines

    with pytest.raises(AttributeError, match="no attribute 'load_everything'"):
        engines.load_everything  # noqa: B018
