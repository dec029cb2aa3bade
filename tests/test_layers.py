"""The house: who may import whom, how long files are, what a wheel holds."""

from __future__ import annotations

import ast
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("engines", "pipeline", "trainer", "benchmarks")
ALLOWED = {
    "engines": {"engines"},
    "pipeline": {"pipeline", "engines"},
    "trainer": {"trainer", "engines"},
    "benchmarks": {"benchmarks", "pipeline", "engines", "trainer"},
}
# Within the run time, lowest first: a file imports from its own room and those before.
ROOMS = [
    "errors", "config", "flow", "types", "events", "planes", "canvas", "labels", "draw", "sources", "stages", "sinks", "web",
    "files", "build", "api", "show", "doctor", "cli",
]  # fmt: skip


def imports(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path.relative_to(ROOT)}:{node.lineno} imports relatively; say from where in full"
            names |= {node.module or ""} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


@pytest.mark.parametrize("package", PACKAGES)
def test_what_reports_to_its_maker_is_imported_silently(package: str) -> None:
    talkative = {"openvino", "nncf", "onnxruntime", "ultralytics"}
    for path in (ROOT / package).rglob("*.py"):
        if path.name != "rivals.py":  # runs in environments of its own
            named = {name.split(".")[0] for name in imports(path)} & talkative
            assert not named, f"{path.relative_to(ROOT)} imports {named}; use engines.silent.import_silently"


@pytest.mark.parametrize("package", PACKAGES)
def test_packages_import_only_downwards(package: str) -> None:
    for path in (ROOT / package).rglob("*.py"):
        mine = {name.split(".")[0] for name in imports(path)} & set(PACKAGES)
        assert mine <= ALLOWED[package], f"{path.relative_to(ROOT)} imports {mine - ALLOWED[package]}"


def test_rooms_of_the_run_time_import_only_downwards() -> None:
    def room(dotted: str) -> str:
        return dotted.split(".")[1]

    for path in (ROOT / "pipeline").rglob("*.py"):
        here = path.relative_to(ROOT / "pipeline").parts[0].removesuffix(".py")
        if here == "__init__":
            continue
        assert here in ROOMS, f"{here} has no place among the rooms"
        for name in imports(path):
            if name.startswith("pipeline.") and room(name) in ROOMS:
                assert ROOMS.index(room(name)) <= ROOMS.index(here), f"{path.relative_to(ROOT)} imports {name}"


def test_flow_knows_only_the_standard_library() -> None:
    for path in (ROOT / "pipeline" / "flow").rglob("*.py"):
        for name in imports(path):
            top = name.split(".")[0]
            assert top in sys.stdlib_module_names or name.startswith(("pipeline.flow", "pipeline.errors")), f"{path.name} imports {name}"


def test_files_stay_of_a_size_that_can_be_read() -> None:
    long = {
        str(p.relative_to(ROOT)): n
        for package in PACKAGES
        for p in (ROOT / package).rglob("*.py")
        if (n := len(p.read_text().splitlines())) > 350
    }
    assert not long, f"past 350 lines there are two things in one: {long}"


def test_every_package_is_in_the_project_file() -> None:
    listed = set(tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]) - {"pipeline.presets"}
    there = {".".join(p.parent.relative_to(ROOT).parts) for package in PACKAGES for p in (ROOT / package).rglob("__init__.py")}
    assert listed == there


def test_no_registry_host_and_no_path_of_a_machine_in_the_project() -> None:
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False).stdout.split()
    if not tracked:
        pytest.skip("not a git checkout")
    forbidden = ["/".join(("", "work", "main")), "/".join(("", "root", "")), ".".join(("pypi", "org")), ".".join(("registry", "npmjs"))]
    for name in tracked:
        path = ROOT / name
        if path.suffix in (".py", ".md", ".toml", ".yaml", ".yml", ".json", "") and path.is_file():
            text = path.read_text(errors="ignore")
            assert not [word for word in forbidden if word in text], name


def test_a_wheel_works_outside_of_the_checkout(tmp_path: Path) -> None:
    """Built from a copy, unpacked beside the installed dependencies, run from another folder: models and presets are inside."""
    copy = tmp_path / "copy"
    names = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True, check=False
    ).stdout.split("\n")
    if not any(names):
        pytest.skip("not a git checkout")
    for name in filter(None, names):
        if (ROOT / name).is_file():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            (copy / name).write_bytes((ROOT / name).read_bytes())
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(tmp_path), str(copy)]
    done = subprocess.run(build, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        inside = archive.namelist()
        archive.extractall(tmp_path / "site")
    assert "pipeline/presets/webcam.yaml" in inside
    assert any(name.endswith("yolo11n_face.onnx") for name in inside)
    assert not any(name.startswith("tests/") for name in inside)
    code = (
        f"import sys; sys.path.insert(0, {str(tmp_path / 'site')!r}); import pipeline; assert {str(tmp_path)!r} in pipeline.__file__; "
        "from pipeline.cli import main; main(['--source', 'demo', '--max-frames', '3', '--config', 'webcam', '--json', '--quiet'])"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert ran.returncode == 0, ran.stderr
    assert '"frames": 3' in ran.stdout
