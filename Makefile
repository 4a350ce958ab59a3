# Each target does its own set-up in .venv; a second call starts at once.
SHELL := /bin/bash
.DEFAULT_GOAL := help

PYTHON ?= python3.11
# cuda where there is an NVIDIA GPU, else cpu; `make install VARIANT=cpu` overrules it.
VARIANT ?= $(if $(shell nvidia-smi --list-gpus 2>/dev/null),cuda,cpu)

BIN := .venv/bin
PIP := $(BIN)/python -m pip --quiet --disable-pip-version-check --no-input
LOCKS := requirements/$(VARIANT).lock requirements/dev.lock
INSTALLED := .venv/.installed-$(VARIANT)
ENCODERS := .venv/.installed-encoders

.PHONY: help install demo test test-slow lint docs results screenshots

help: ## Show this list.
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1\t/' | expand -t 20

install: $(INSTALLED) ## Install everything, pinned, into .venv (CUDA build if there is a GPU).

demo: $(INSTALLED) ## Train and compare four models on a synthetic catalogue, in a few minutes.
	@$(BIN)/egra-dist demo

# Files go to three processes, as much of the time goes into waiting for Ray.
PYTEST := $(BIN)/pytest -n 3 --dist loadfile --no-loadscope-reorder

test: $(ENCODERS) ## Run the tests.
	@$(PYTEST) -m "not slow"

test-slow: $(ENCODERS) ## Run those that lose machines and servers, and the commands of all pages.
	@$(PYTEST) -m slow $(SHARE:%=--share %)

results: $(INSTALLED) ## Compare the models on real data (hours; goes on where it stopped).
	@$(BIN)/python -m tests.benchmarks.quality

screenshots: $(INSTALLED) ## Train a small search and photograph it for docs/images (needs Chromium).
	@$(BIN)/python -m tests.screenshots

lint: $(INSTALLED) ## Check format, style, types and import direction.
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: $(INSTALLED) ## Build the documentation into build/site; a broken link or anchor fails.
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict
	@echo "Open build/site/index.html (search needs a server: python -m http.server -d build/site)."

# torch comes with what its wheel asks for; the rest without, as the locks are complete and
# torchrec's metadata asks for the CUDA build of fbgemm on every machine.
$(INSTALLED): $(LOCKS) pyproject.toml
	@command -v $(PYTHON) >/dev/null || { echo "$(PYTHON) not found: install Python 3.11, or say make PYTHON=..." >&2; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@echo "Installing torch ($(VARIANT)) into .venv ..."
	@$(PIP) install torch --constraint $<
	@echo "Installing everything else ..."
	@$(PIP) install --no-deps $(LOCKS:%=--requirement %)
	@$(PIP) install --no-deps --no-build-isolation --editable .
	@rm -f .venv/.installed-* && touch $@

# What `featurize` needs, with a small model: tests run it, a training does without.
$(ENCODERS): requirements/featurize.lock $(INSTALLED)
	@echo "Installing text encoders into .venv ..."
	@$(PIP) install --no-deps --requirement $<
	@touch $@
