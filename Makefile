# The three commands of the README and of CI. Everything is installed into .venv; nothing else is touched.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
RUN := PATH="$(CURDIR)/$(BIN):$$PATH" PYTHONUNBUFFERED=1

.PHONY: demo test test-slow lint format bench install clean
.DEFAULT_GOAL := demo

install: $(STAMP)

$(STAMP): pyproject.toml constraints.txt scripts/install.sh
	bash scripts/install.sh "$(PYTHON)" "$(VENV)"
	touch $(STAMP)

demo: install
	$(RUN) $(BIN)/curate demo

test: install
	$(RUN) $(BIN)/pytest -n 2 --dist loadfile -m "not slow" tests

test-slow: install
	$(RUN) $(BIN)/pytest -n 2 --dist loadfile -m slow tests

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: install
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: install
	for b in plan download dedupe manifest loader trainer; do $(RUN) $(BIN)/python -m benchmarks.$$b || exit 1; done

clean:
	rm -rf $(VENV) demo-run
