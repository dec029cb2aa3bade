# Every target does all of its set-up itself: `make demo` and `make test` work on a bare machine with Python >= 3.11.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test lint bench soak clean

demo: $(VENV)/.demo
	@mkdir -p out
	$(BIN)/fer-stream --source demo --output out/demo.mp4 --events out/demo.jsonl --overwrite --purpose "demonstration on public-domain portraits"
	@echo "Look at out/demo.mp4 (annotated video) and out/demo.jsonl (one row per face and frame)."

test: $(VENV)/.dev
	$(BIN)/python -m pytest -q

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/mypy

bench: $(VENV)/.demo
	$(BIN)/fer-bench pipeline --source demo

# Twenty minutes of two paced files and a camera that is restarted every 20 s: threads, sockets and memory must stay flat.
soak: $(VENV)/.dev
	@mkdir -p out
	$(BIN)/python -m benchmarks.soak --minutes 20 --plot out/soak.png

clean:
	rm -rf $(VENV) out build *.egg-info

$(BIN)/python:
	$(PYTHON) -c 'import sys; sys.exit("fer-stream needs Python 3.11 or newer, this is " + sys.version.split()[0] if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)

# The stamps hold the extras that are installed; a changed pyproject.toml installs again.
$(VENV)/.demo: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable ".[demo]"
	@touch $@

$(VENV)/.dev: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable ".[dev]"
	@touch $@ $(VENV)/.demo
