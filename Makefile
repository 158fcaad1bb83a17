# The one entrance. Each target brings what it needs on a machine that has Python 3.11+, make, git
# and a package index; nothing is installed system-wide but the packages of `make system-packages`.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= python3
TOOLS := .tools
# A uv of the machine is used where there is one, else one is installed into the project.
UV := $(shell command -v uv 2>/dev/null || echo $(TOOLS)/uv/bin/uv)
RUN := .venv/bin
STAMP := .venv/.synced
WORKERS ?= 2
VERSION ?= 0.169.0
REQUIRE ?=
SEEDS ?= 10000
FROM ?= 0

.PHONY: help
help:
	@echo "make demo         run the whole way on a sample board with the real Codex; no account, no key"
	@echo "make test         the tests that every change needs"
	@echo "make test-full    all tests; REQUIRE=sshd,chromium,bwrap,ray turns their skips into failures"
	@echo "make soak         10,000 simulated seeds; SEEDS=500 FROM=20000 chooses others"
	@echo "make mutants      break the code a line at a time and expect its test to fail; ONLY=retry"
	@echo "make check        format, lint, types, layers, architecture"
	@echo "make fmt          format and mend what can be mended"
	@echo "make bench        our figures beside the reference executable's, in one run"
	@echo "make docs         build the documentation into site/"
	@echo "make screenshot   renew the picture in the README from a run of the demo"
	@echo "make codex        fetch a native Codex binary: VERSION=$(VERSION)"
	@echo "make clean        remove what these targets made"

$(TOOLS)/uv/bin/uv:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "Python 3.11 or newer is needed; set PYTHON=/path/to/python3.11" >&2; exit 1; }
	@mkdir -p $(TOOLS)
	@$(PYTHON) -m venv $(TOOLS)/uv >/dev/null 2>&1 && $(TOOLS)/uv/bin/python -m pip install -q uv \
	  || { rm -rf $(TOOLS)/uv; $(PYTHON) -m pip install -q --target $(TOOLS)/uv uv; }
	@test -x $@ || { echo "uv could not be installed into $(TOOLS)/uv" >&2; exit 1; }

$(STAMP): pyproject.toml client/pyproject.toml uv.lock | $(filter $(TOOLS)%,$(UV))
	$(UV) sync --frozen --extra demo --quiet
	@touch $@

.PHONY: setup
setup: $(STAMP)

.PHONY: demo
demo: $(STAMP)
	@$(RUN)/symphony demo $(ARGS)

.PHONY: system-packages
system-packages:
	@bash .ci/system-packages

# The tests run on npm's binary of the pinned version too, where it can be had.
.PHONY: pinned-codex
pinned-codex:
	@test -d .codex-binaries/0.169.0 || bash .ci/fetch-codex 0.169.0 >/dev/null \
	  || echo "Tests that need npm's Codex 0.169.0 are skipped" >&2

.PHONY: test
test: $(STAMP) system-packages pinned-codex
	$(RUN)/pytest -n $(WORKERS) -m "not slow and not live" $(ARGS)

.PHONY: test-full
test-full: $(STAMP) system-packages .codex-binaries/0.169.0 .codex-binaries/0.125.0
	SYMPHONY_REQUIRE=$(REQUIRE) $(RUN)/pytest -n $(WORKERS) --timeout 300 --hypothesis-profile explore $(ARGS)

.PHONY: check
check: $(STAMP)
	$(RUN)/ruff format --check .
	$(RUN)/ruff check .
	$(RUN)/mypy
	$(RUN)/lint-imports
	$(RUN)/pytest -q -n 0 -rP tests/architecture  # -rP: the largest modules are told

.PHONY: fmt
fmt: $(STAMP)
	$(RUN)/ruff format .
	$(RUN)/ruff check --fix .

.PHONY: soak
soak: $(STAMP)
	$(RUN)/python -m tests.simulation --from $(FROM) --count $(SEEDS) --workers $(WORKERS)

.PHONY: mutants
mutants: $(STAMP) pinned-codex
	$(RUN)/python tests/spec/mutate.py $(ONLY)

.PHONY: bench
bench: $(STAMP) | $(filter $(TOOLS)%,$(UV))
	$(UV) sync --frozen --extra demo --group bench --inexact --quiet
	$(RUN)/python bench/run.py $(ARGS)

.PHONY: docs
docs: $(STAMP) | $(filter $(TOOLS)%,$(UV))
	$(UV) sync --frozen --extra demo --group docs --inexact --quiet
	$(RUN)/mkdocs build --strict

.PHONY: screenshot
screenshot: $(STAMP) system-packages
	$(RUN)/python docs/tools/screenshot.py docs/images/dashboard.png

.PHONY: codex
codex: .codex-binaries/$(VERSION)

.codex-binaries/%:
	@bash .ci/fetch-codex $*

.PHONY: clean
clean:
	rm -rf .venv $(TOOLS) .codex-binaries .pytest_cache .mypy_cache .ruff_cache .hypothesis \
	  .import_linter_cache site dist bench/results bench/build
