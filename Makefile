# Everything happens in .venv; `make` alone lists the targets. Needs Python 3.11 or newer and make, nothing else.
PYTHON ?= python3
ARGS ?=

VENV := .venv
BIN := $(VENV)/bin
SIZE := 3 to 7 minutes and 6 GB the first time

# Rebuild an environment whose installation was interrupted or whose interpreter is gone.
BROKEN := $(shell test -x $(BIN)/python -a ! -e $(VENV)/.unfinished || echo rebuild)

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help setup sweep test check clean rebuild

help: ## this list
	@grep -E '^[a-z]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{ printf "  make %-8s %s\n", $$1, $$2 }'

setup: $(VENV)/.run ## create .venv and install sd2eval into it

sweep: $(VENV)/.run ## the mini study; settings: make sweep ARGS="prompts.n=16 out=outputs/mine"
	@$(BIN)/python -m sd2eval sweep $(ARGS)

test: $(VENV)/.test ## run the tests; a choice of them: make test ARGS="tests/metrics -x"
	@$(BIN)/python -m pytest $(ARGS)

check: $(VENV)/.dev ## ruff format, ruff check, mypy --strict: what CI runs besides the tests
	@failed=0; for command in "ruff format --check ." "ruff check ." "mypy"; do \
		echo "$$command"; $(BIN)/python -m $$command || failed=1; done; exit $$failed

clean: ## remove .venv, builds and caches; outputs/ stays
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

rebuild:

# Stamps: an environment is installed once for each kind of use, and again when pyproject.toml changes.
$(VENV)/.run: pyproject.toml $(BROKEN)
	$(call install,.[probes])

$(VENV)/.test: pyproject.toml $(BROKEN)
	$(call install,.[test])

$(VENV)/.dev: pyproject.toml $(BROKEN)
	$(call install,.[dev])

# $(call install,REQUIREMENT): .unfinished lies in the environment from its creation until pip has ended well.
define install
@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	echo "sd2eval needs Python 3.11 or newer, but '$(PYTHON)' is $$($(PYTHON) -V 2>/dev/null || echo not there)." \
	"Say which: make $(MAKECMDGOALS) PYTHON=/path/to/python3.11" >&2; exit 1; }
@if [ -e $(VENV)/.unfinished ] || ! $(BIN)/python -c '' 2>/dev/null; then \
	rm -rf $(VENV) && mkdir $(VENV) && touch $(VENV)/.unfinished && $(PYTHON) -m venv $(VENV); fi
@touch $(VENV)/.unfinished
@echo "installing sd2eval, PyTorch and friends into $(VENV) ($(SIZE)) ..."
@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '$(1)'
@rm $(VENV)/.unfinished; touch $@
endef
