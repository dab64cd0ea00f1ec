# One command for each thing a person wants. Everything lives in .venv; the first call makes it.
VENV := .venv
BIN := $(VENV)/bin
INSTALL := $(BIN)/python -m pip install -qq --disable-pip-version-check -c constraints.txt
PYTEST := $(BIN)/python -m pytest
WORKERS ?= 2

.PHONY: help demo test test-slow bench check docs reference browser clean
.DEFAULT_GOAL := help

help:  ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 20

demo: $(VENV)/demo  ## watch the whole loop on made-up data
	@$(BIN)/evergreen demo

test: check browser  ## everything but what takes minutes
	@$(PYTEST) -n $(WORKERS) --dist worksteal -m "not slow"

test-slow: $(VENV)/dev browser  ## what takes minutes
	@$(PYTEST) -m slow

bench: $(VENV)/dev  ## measure against others on this machine
	@$(BIN)/python -m benchmarks

check: $(VENV)/dev  ## format, lint, types, imports, sizes, pages that are written from code
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-logo
	@$(BIN)/python tools/sizes.py
	@$(BIN)/python tools/tree.py --check $$(grep -ls '<!-- tree' AGENTS.md README.md docs/*.md)
	@$(BIN)/python tools/reference.py --check

docs: $(VENV)/dev reference  ## build the pages into site/
	@$(BIN)/mkdocs build --quiet --strict

reference: $(VENV)/dev  ## renew what is written from code: docs/reference, trees
	@$(BIN)/python tools/reference.py
	@$(BIN)/python tools/tree.py --write $$(grep -ls '<!-- tree' AGENTS.md README.md docs/*.md)

browser:  ## fetch Chromium for the browser tests, where that can be done; else they are skipped
	@if command -v chromium >/dev/null || command -v chromium-browser >/dev/null || command -v google-chrome >/dev/null; then :; \
	elif [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
		echo "fetching chromium for the browser tests …"; \
		export DEBIAN_FRONTEND=noninteractive; \
		{ apt-get update && apt-get install -y --no-install-recommends chromium; } >/dev/null 2>&1 \
		|| echo "chromium could not be installed: the browser tests are skipped"; \
	else echo "there is no chromium: the browser tests are skipped"; fi

# A virtual environment with pip in it. One that is there is kept.
$(VENV)/made:
	@set -e; \
	new='import sys; sys.exit(sys.version_info < (3, 11))'; \
	if [ ! -x $(BIN)/python ]; then \
		for py in $(PYTHON) python3 python3.14 python3.13 python3.12 python3.11 none; do \
			if command -v $$py >/dev/null && $$py -c "$$new" 2>/dev/null; then break; fi; \
		done; \
		if [ $$py = none ]; then \
			echo "error: Evergreen needs Python 3.11 or newer; there is $$(python3 --version 2>/dev/null || echo none)."; \
			echo "try:   install one, then: make PYTHON=/path/to/python3.11 $(MAKECMDGOALS)"; \
			exit 1; \
		fi; \
		echo "making $(VENV) with $$($$py --version) …"; \
		$$py -m venv $(VENV); \
	fi; \
	if ! $(BIN)/python -c "$$new"; then \
		echo "error: $(VENV) has $$($(BIN)/python --version), Evergreen needs 3.11 or newer."; \
		echo "try:   make clean, then again"; \
		exit 1; \
	fi; \
	$(BIN)/python -m pip --version >/dev/null 2>&1 || $(BIN)/python -m ensurepip >/dev/null
	@touch $@

# What serving and training need; a full environment has it too.
$(VENV)/demo: pyproject.toml constraints.txt | $(VENV)/made
	@if [ $(VENV)/dev -nt pyproject.toml ] && [ $(VENV)/dev -nt constraints.txt ]; then :; else \
		echo "installing what serving and training need (about half a minute) …"; \
		$(INSTALL) -e '.[serve,tabular]'; fi
	@touch $@

$(VENV)/dev: pyproject.toml constraints.txt | $(VENV)/made
	@echo "installing what the tests need (about a minute) …"
	@$(INSTALL) -e '.[dev]'
	@touch $@

clean:  ## throw away .venv, caches and whatever was built
	@rm -rf $(VENV) build dist site .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .schemathesis
	@find . -name __pycache__ -prune -exec rm -rf {} +
