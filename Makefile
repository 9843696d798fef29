# Everything is installed into .venv; nothing else is touched.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
RUN := PATH="$(CURDIR)/$(BIN):$$PATH" PYTHONUNBUFFERED=1

.PHONY: help demo test test-slow cluster soak lint audit format bench install clean
.DEFAULT_GOAL := help

help:  ## Print the targets and what each of them does.
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: $(STAMP)  ## Make .venv and install the project with its dependencies into it.

$(STAMP): pyproject.toml constraints.txt scripts/install.sh
	bash scripts/install.sh "$(PYTHON)" "$(VENV)"
	touch $(STAMP)

demo: install  ## Run every stage on a small web on loopback, verify the root and train a toy model, in demo-run.
	$(RUN) $(BIN)/curate demo

test: install  ## Run the tests that take less than ten seconds each.
	$(RUN) $(BIN)/pytest -n 2 --dist loadfile -m "not slow" tests

test-slow: install  ## Run the tests that take longer, such as kills, clusters and distributed training.
	$(RUN) $(BIN)/pytest -n 2 --dist loadfile -m "slow and not soak" tests

cluster: install  ## Run what needs a Spark cluster, on three workers on loopback; CI runs the part that is not soak.
	$(RUN) $(BIN)/pytest -m cluster tests

soak: install  ## Run what takes too long for CI: all pairs of ranks, a damaged root, fuzzing, two hours of a hostile web.
	$(RUN) $(BIN)/pytest -n 2 --dist loadfile -m soak tests
	$(RUN) $(BIN)/python -m benchmarks.damage
	$(RUN) $(BIN)/python -m benchmarks.fuzz --minutes 30
	$(RUN) $(BIN)/python -m benchmarks.soak --minutes 120

lint: install  ## Check style and types, and change nothing.
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

audit: install  ## List what is installed (sbom.json, CycloneDX), and ask for known vulnerabilities of the tested versions.
	$(RUN) $(BIN)/python scripts/audit.py

format: install  ## Format the code and repair what ruff can repair.
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: install  ## Run the benchmarks beside their peers and write benchmarks/results; takes hours.
	for b in plan scale download dedupe manifest decisions concepts loader trainer evaluation; do $(RUN) $(BIN)/python -m benchmarks.$$b || exit 1; done

clean:  ## Delete .venv and demo-run.
	rm -rf $(VENV) demo-run
