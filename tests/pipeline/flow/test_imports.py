"""The flow knows nothing of video."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pipeline.flow


def test_flow_imports_the_standard_library_and_the_errors_only():
    folder = Path(pipeline.flow.__file__).parent
    for file in sorted(folder.glob("*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom):
                assert not node.level, f"{file.name}:{node.lineno} imports relatively; say from where in full"
                names.append(node.module or "")
            for name in names:
                known = name.split(".")[0] in sys.stdlib_module_names or name.startswith("pipeline.flow.") or name == "pipeline.errors"
                assert known, f"{file.name} imports {name}"
