# The README's commands. `make demo` and `make test` do all their set-up themselves.
.PHONY: help demo test test-all soak lint format setup setup-dev clean

DEMO_JOB := examples/nav_mesh.yaml
DEMO_OUT := out/nav_mesh

help: ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

demo: setup ## make a navigation dataset from scratch, and a contact sheet of it
	@.venv/bin/nimbusctl run $(DEMO_JOB) --output $(DEMO_OUT)
	@.venv/bin/nimbusctl show $(DEMO_OUT) --output $(DEMO_OUT)/contact_sheet.png
	@echo "Dataset:       $(DEMO_OUT)/dataset"
	@echo "Contact sheet: $(DEMO_OUT)/contact_sheet.png"

test: setup-dev lint ## all checks, and the tests but those that take long
	@.venv/bin/pytest -q

test-all: setup-dev lint ## all checks and all tests, for every night
	@.venv/bin/pytest -q --slow

SOAK_HOURS ?= 24

soak: setup-dev ## a day of real work with kills and memory slopes, as root (SOAK_HOURS=1 for an hour)
	@.venv/bin/nimbusctl assets fetch
	@.venv/bin/python -m tests.benchmarks.soak_cluster --hours $(SOAK_HOURS)

lint: setup-dev ## formatting, lint, types and layers
	@.venv/bin/ruff check --quiet
	@.venv/bin/ruff format --check --quiet
	@.venv/bin/mypy
	@.venv/bin/lint-imports

format: setup-dev ## rewrite the code in the project's format
	@.venv/bin/ruff check --fix
	@.venv/bin/ruff format

# An environment with the developers' tools serves the demo as well, so it is not thrown away for it.
setup:
	@if [ -f .venv/.ready ] && grep -q dev .venv/.ready; then scripts/setup.sh blender dev; else scripts/setup.sh blender; fi

setup-dev:
	@scripts/setup.sh blender dev

clean: ## remove the environment and what demos and tools wrote
	rm -rf .venv out .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
