# Two commands: make demo, make test. The others are for those who work on the code.
SHELL := /bin/bash
PYTHON ?= python3.11
BIN := .venv/bin
# Half a gigabyte, which only make acceptance needs; the tests of Spark are skipped where Java is missing.
SPARK := $(BIN)/spark-submit
STAMP := .venv/.installed-$(shell cat requirements.lock pyproject.toml | sha256sum | cut -c1-16)
PORT ?= 3000

# No telemetry, and no idle threads that compete for two cores.
export MLFLOW_DISABLE_TELEMETRY := true
export DO_NOT_TRACK := true
export BENTOML_DO_NOT_TRACK := True
export DAGSTER_DISABLE_TELEMETRY := yes
export OMP_WAIT_POLICY := PASSIVE
export OPENBLAS_NUM_THREADS := 1

.PHONY: demo test notebooks lint check acceptance docs bench answers soak growth goals lock clean

demo: $(STAMP)  ## Load a real grocer, run a night, serve on port 3000 (SERVE=no: stop before serving)
	$(BIN)/regulars demo --port $(PORT) $(if $(filter no,$(SERVE)),--no-serve)

test: $(STAMP)  ## Everything that CI runs, a file at a time on every core; eleven to fourteen minutes on two
	$(BIN)/pytest --numprocesses auto --dist loadfile --no-loadscope-reorder

acceptance: $(STAMP) $(SPARK)  ## Whole nights, real servers, PostgreSQL, Redis, MLflow and Spark, every operation killed twenty times at random
	KILLS=20 $(BIN)/pytest -m acceptance --numprocesses auto --dist loadfile --no-loadscope-reorder

lint: $(STAMP)  ## Ruff, types, and the migrations against the tables
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m customers.database.migrations.check

check: lint test notebooks docs  ## The one gate

notebooks: $(STAMP)  ## Run every notebook from top to bottom
	$(BIN)/pytest -m notebooks --numprocesses auto

docs: $(STAMP)  ## The documentation site, from docs/ into site/; every link is checked
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

bench: $(STAMP)  ## Paired ratios against named references
	$(BIN)/python tests/benchmarks/speed.py
	$(BIN)/python tests/benchmarks/scale.py

#: A home with a finished nightly run, for the benchmarks of the server; they work on copies.
SERVED ?= .regulars

answers: $(STAMP)  ## Answers over HTTP beside a no-op and numpy, posted sales, a million customers (SERVED=HOME)
	$(BIN)/python tests/benchmarks/answers.py --home $(SERVED)
	$(BIN)/python tests/benchmarks/sales.py --home $(SERVED)
	$(BIN)/python tests/benchmarks/wide_lookup.py --home $(SERVED)

soak: $(STAMP)  ## Ten minutes of load while workers are killed, champions change and the registry is away (SERVED=HOME)
	$(BIN)/python tests/benchmarks/soak.py $(SERVED) --minutes 10

growth: $(STAMP)  ## How a night's cost rises with the shop, from 1 to 16 times the demo
	$(BIN)/python tests/benchmarks/growth.py

goals: $(STAMP)  ## What every model must reach on two real shops, beside benchmarks measured in the same run
	$(BIN)/python tests/benchmarks/accuracy_targets.py

lock: $(STAMP)  ## Pin every dependency again; a CPU tag would not install elsewhere, old pins would bring CUDA back
	rm -f requirements.lock
	$(BIN)/uv pip compile pyproject.toml --extra demo --extra dev --python-version 3.11 --no-header --no-annotate \
	  $${PIP_FIND_LINKS:+--find-links $$PIP_FIND_LINKS} -o requirements.lock
	sed -i 's/+cpu$$//' requirements.lock

clean:
	rm -rf .venv *.egg-info

$(SPARK): $(STAMP)
	$(BIN)/uv pip install --quiet --python $(BIN)/python --constraint requirements.lock --editable '.[spark]'
	test -x "$$(command -v java)" || echo "Without Java the tests of Spark are skipped: apt-get install openjdk-17-jre-headless"

# uv installs five times as fast as pip, and is itself taken from the lock.
$(STAMP):
	test -x $(BIN)/python || $(PYTHON) -m venv .venv || python3 -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check "$$(grep '^uv==' requirements.lock)"
	$(BIN)/uv pip install --quiet --python $(BIN)/python $${PIP_FIND_LINKS:+--find-links $$PIP_FIND_LINKS} -r requirements.lock
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --editable .
	rm -f .venv/.installed-* && touch $@
