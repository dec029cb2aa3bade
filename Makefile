# Every target does all of its set-up itself: `make demo` and `make test` work on a bare machine with Python >= 3.11.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
TRAIN := .venv-train
NEEDS_TORCH := tests/trainer tests/engines/test_torch_program.py tests/engines/test_torch_options.py tests/engines/test_batches.py \
	tests/engines/test_backends.py tests/engines/test_cli.py tests/pipeline/test_unsafe_pickle.py

.PHONY: demo test test-train lint bench soak clean

demo: $(VENV)/.demo
	@mkdir -p out
	$(BIN)/fer-stream --source demo --output out/demo.mp4 --events out/demo.jsonl --overwrite --purpose "demonstration on public-domain portraits"
	@echo "Look at out/demo.mp4 (annotated video) and out/demo.jsonl (one row per face and frame)."

# Two files of tests at a time; what fails beside another has a second try alone, since cameras and clocks want a core of their own.
test: $(VENV)/.dev
	$(BIN)/python -m pytest -q -n 2 --dist loadfile || $(BIN)/python -m pytest -q --last-failed --last-failed-no-failures none

# What `make test` skips, for it installs no torch (gigabytes): how models are made, and torch as a back-end.
test-train: $(TRAIN)/.train
	$(TRAIN)/bin/python -m pytest -q $(NEEDS_TORCH)

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
	rm -rf $(VENV) $(TRAIN) out build *.egg-info

$(BIN)/python $(TRAIN)/bin/python:
	$(PYTHON) -c 'import sys; sys.exit("fer-stream needs Python 3.11 or newer, this is " + sys.version.split()[0] if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(@D:/bin=)

# The stamps hold the extras that are installed; a changed pyproject.toml installs again.
$(VENV)/.demo: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable ".[demo]"
	@touch $@

$(VENV)/.dev: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable ".[dev]"
	@touch $@ $(VENV)/.demo

$(TRAIN)/.train: pyproject.toml | $(TRAIN)/bin/python
	$(TRAIN)/bin/python -m pip install --quiet --disable-pip-version-check --editable ".[train]" pytest pytest-timeout hypothesis
	@touch $@
