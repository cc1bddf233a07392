# Two commands: make demo, make test. Everything else is for those who work on the house.
SHELL := /bin/bash
PYTHON ?= python3.11
BIN := .venv/bin
STAMP := .venv/.installed-$(shell cat requirements.lock pyproject.toml | sha256sum | cut -c1-16)
PORT ?= 3000

# Nobody is told that we run, and two cores are not fought over by idle threads.
export MLFLOW_DISABLE_TELEMETRY := true
export DO_NOT_TRACK := true
export BENTOML_DO_NOT_TRACK := True
export DAGSTER_DISABLE_TELEMETRY := yes
export OMP_WAIT_POLICY := PASSIVE
export OPENBLAS_NUM_THREADS := 1

.PHONY: demo test lint check bench goals torture lock clean

demo: $(STAMP)  ## Load a real grocer, run a night, serve on port 3000 (SERVE=no: stop before serving)
	$(BIN)/regulars demo --port $(PORT) $(if $(filter no,$(SERVE)),--no-serve)

test: $(STAMP)  ## The whole suite, a file at a time on every core
	$(BIN)/pytest --numprocesses auto --dist loadfile --no-loadscope-reorder

lint: $(STAMP)  ## Ruff, types, and the schema's history against the tables
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m customers.database.migrations.check

check: lint test  ## The one gate

bench: $(STAMP)  ## Paired ratios against named references
	$(BIN)/python tests/benchmarks/speed.py
	$(BIN)/python tests/benchmarks/scale.py

goals: $(STAMP)  ## What every model must reach on two real shops, beside named rivals measured in the same run
	$(BIN)/python tests/benchmarks/accuracy_targets.py

torture: $(STAMP)  ## Every act of a shop killed twenty times, at random moments, and done again
	KILLS=20 $(BIN)/pytest tests/pipelines/nightly/test_crash_recovery.py

lock: $(STAMP)  ## Pin every dependency again; a CPU tag would not install elsewhere, old pins would bring CUDA back
	rm -f requirements.lock
	$(BIN)/uv pip compile pyproject.toml --extra demo --extra dev --python-version 3.11 --no-header --no-annotate \
	  $${PIP_FIND_LINKS:+--find-links $$PIP_FIND_LINKS} -o requirements.lock
	sed -i 's/+cpu$$//' requirements.lock

clean:
	rm -rf .venv *.egg-info

# uv installs five times as fast as pip, and is itself taken from the lock.
$(STAMP):
	test -x $(BIN)/python || $(PYTHON) -m venv .venv || python3 -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check "$$(grep '^uv==' requirements.lock)"
	$(BIN)/uv pip install --quiet --python $(BIN)/python $${PIP_FIND_LINKS:+--find-links $$PIP_FIND_LINKS} -r requirements.lock
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --editable .
	rm -f .venv/.installed-* && touch $@
