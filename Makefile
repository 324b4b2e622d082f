# Everything sets itself up: a machine with Python 3.11+, git and make is enough.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# pydoclint needs a fork of docstring_parser that would overwrite the one that Prefect's dependencies use.
DOCSTRINGS := $(VENV)/docstrings/bin/pydoclint

export DO_NOT_TRACK := true
export MLFLOW_DISABLE_TELEMETRY := true
export PREFECT_SERVER_ANALYTICS_ENABLED := false

.PHONY: demo up test test-system check format install pocket benchmarks proofs clean

demo: $(STAMP)
	$(BIN)/mannerism demo

# These depend on nothing that a hub says; runs of `up` may ask for a base by its hub id.
demo test test-system benchmarks proofs: export HF_HUB_OFFLINE := 1

up: $(STAMP)
	$(BIN)/mannerism up

install: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[test,check]'
	touch $@

$(DOCSTRINGS): $(STAMP)
	$(PYTHON) -m venv $(VENV)/docstrings
	$(VENV)/docstrings/bin/pip install --quiet --disable-pip-version-check --constraint constraints.txt pydoclint

check: $(STAMP) $(DOCSTRINGS)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(DOCSTRINGS) pipeline_lib flows tasks deployments
	$(BIN)/lint-imports

format: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# Files of tests side by side, a process for each core; arithmetic is on one thread in each.
test: $(STAMP)
	$(BIN)/python -m pytest -m "not system and not gpu" -n auto --maxprocesses 4 --dist loadfile

# Servers, a browser, PostgreSQL, kills. Installs the Debian packages it needs.
test-system: $(STAMP)
	@command -v chromium >/dev/null && ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 || \
		(apt-get update -qq && apt-get install -y -qq --no-install-recommends chromium postgresql)
	$(BIN)/python -m pytest -m system -n 2 --dist loadfile

# Every part is resumable: run it again to go on.
pocket: $(STAMP)
	$(BIN)/python -m pipeline_lib.pocket all

benchmarks: $(STAMP)
	$(BIN)/python -m benchmarks.training_step
	$(BIN)/python -m benchmarks.families --counts
	$(BIN)/python -m benchmarks.gizmos

# Kills, many drops and what orchestration costs: hours. One after the other, whatever comes of those before.
proofs: $(STAMP)
	@failed=0; for proof in kills cancel drops "overhead --rounds 3"; do \
		$(BIN)/python -m benchmarks.$$proof || failed=1; done; exit $$failed

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
