# Every target sets up all that it needs; see scripts/bootstrap.py.
#   make demo ARGS="--seconds 20"      arguments for the command behind a target
#   make test PYTHON=python3.12        another Python, in a new environment
SHELL := /bin/sh
VENV ?= .venv
WORKERS ?= 2
ARGS ?=
RUN := $(VENV)/bin/

# $(call setup,PROFILE): the first Python that is new enough sets up the profile.
define setup
@for python in $(or $(PYTHON),python3 python3.13 python3.12 python3.11); do \
    if "$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then \
        exec "$$python" scripts/bootstrap.py --venv "$(VENV)" $(1); \
    fi; \
done; \
echo "Python 3.11 or newer is needed, and $(or $(PYTHON),python3) is not: make PYTHON=/path/to/python3" >&2; exit 1
endef

.PHONY: help demo test check reliability compat compare-models bench screenshots fmt clean

help:
	@echo "make demo    a web app and model calls being cached, live (ARGS=\"--seconds 20 --redis URL\")"
	@echo "make test    the tests (ARGS=\"-k words\")"
	@echo "make check   format, lint, types, import contracts, then the tests"
	@echo "make reliability"
	@echo "             the tests that take long: servers that fail and are replaced"
	@echo "make compat  the SDKs of model providers as they are published today (ARGS=\"openai anthropic\")"
	@echo "make compare-models"
	@echo "             what this cache and others do with model calls (ARGS=\"--write\")"
	@echo "make bench   the benchmark tables"
	@echo "make screenshots"
	@echo "             pictures of the dashboards over a run of the demo (ARGS=\"--again\": the last one)"
	@echo "make fmt     format the sources"
	@echo "make clean   remove the environment and all caches"

demo:
	$(call setup,demo)
	@$(RUN)aurelis-cache demo $(ARGS)

test:
	$(call setup,test)
	@$(RUN)python -m pytest -n $(WORKERS) --dist loadfile $(ARGS)

check:
	$(call setup,test)
	$(RUN)ruff format --check .
	$(RUN)ruff check .
	$(RUN)mypy
	$(RUN)lint-imports --no-logo
	$(MAKE) --no-print-directory test

reliability:
	$(call setup,test)
	@$(RUN)python -m pytest -m reliability -raP $(ARGS)

compat:
	$(call setup,compat)
	@$(RUN)python -m tests.compat $(ARGS)

compare-models:
	$(call setup,compat)
	@$(RUN)python -m tests.compare $(ARGS)

bench:
	$(call setup,bench)
	@$(RUN)python -m tests.benchmarks $(ARGS)

screenshots:
	$(call setup,screenshots)
	@$(RUN)python -m scripts.screenshots $(ARGS)

fmt:
	$(call setup,test)
	$(RUN)ruff format .
	$(RUN)ruff check --fix .

clean:
	rm -rf -- "$(VENV)" .cache build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf -- {} +
