# Two commands do everything: `make demo` and `make test`. Both make .venv first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DEMO := .demo
JOBS := 2
PYTEST = $(BIN)/python -m pytest $(if $(SLOWEST),--durations=$(SLOWEST))

.DEFAULT_GOAL := help
.PHONY: help venv demo test test-restless lint types bench bench-verdict bench-zoo bench-false-alarms bench-speed gpu-check wheel docs constraints clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-19s %s\n", $$1, $$2}'

venv: $(VENV)/.ready ## create the environment in .venv

# torch is installed first and by exact version: a CPU build is enough, a later resolution must not replace it.
$(VENV)/.ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch==2.13.0
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $@

demo: venv ## run the main job on a real model and print where the report is
	@mkdir -p $(DEMO)
	@echo "training a small CNN on scikit-learn's handwritten digits"
	@$(BIN)/python fixtures/models/digits_cnn.py $(DEMO)/digits_cnn.pth
	@$(BIN)/python -m pytest --mf-model $(DEMO)/digits_cnn.pth --mf-slow --mf-report-dir reports \
	  --mf-cache $(DEMO)/cache --tb=no --benchmark-disable -p no:cacheprovider; status=$$?; \
	if [ $$status -gt 1 ]; then exit $$status; fi
	@echo
	@echo "The report: reports/latest/index.html"
	@if grep -q '"outcome":"fallback"' reports/latest/results.jsonl; then \
	  echo "A red cell in it is a finding about this machine: a runtime was asked for one precision and ran another."; fi

# Most tests wait for processes, so two run side by side; those that look at a clock or at memory run after them, one by
# one. SLOWEST=30 prints that many; with REPEAT_ALONE=1 those of the latter that failed are run once more, and named.
test: venv ## run every test
	@status=0; \
	$(PYTEST) -n $(JOBS) --dist loadfile --no-loadscope-reorder -m "not alone" || status=1; \
	$(PYTEST) -m alone; ended=$$?; \
	if [ $$ended -eq 1 ] && [ -n "$(REPEAT_ALONE)" ]; then \
	  echo "what failed beside a clock is repeated once; these tests:"; \
	  $(PYTEST) -m alone --last-failed --last-failed-no-failures none --verbose; ended=$$?; \
	fi; \
	[ $$ended -eq 0 ] || status=1; \
	exit $$status

test-restless: venv ## run every test while two processes take the cores in random bursts
	$(BIN)/python tools/restless.py --processes 2 -- $(MAKE) --no-print-directory test

lint: venv ## ruff, who may import whom, and every test file can be imported
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-cache
	$(BIN)/lint-imports --no-cache tools/circles.ini
	@$(BIN)/python -m pytest --collect-only --quiet --quiet > $(VENV)/.collected || { cat $(VENV)/.collected; exit 1; }

types: venv ## mypy, strict
	$(BIN)/mypy

bench: venv ## what the tool itself costs, beside a hand-written script
	$(BIN)/python benchmarks/bench.py

gpu-check: ## prove the GPU lanes on this machine: make gpu-check PYTHON=python3
	$(PYTHON) benchmarks/gpu_check.py $(ARGS)

bench-verdict: venv ## put faults into correct models and count which of them the verdict finds
	$(BIN)/python -m benchmarks.verdict.run

bench-zoo: venv ## judge real models that nobody here wrote, beside a second opinion (installs them into .zoo)
	$(BIN)/python -m benchmarks.zoo.run $(ARGS)

bench-speed: venv ## compare identical and slowed-down cells and count false alarms and misses
	$(BIN)/python -m benchmarks.speed.run

bench-false-alarms: venv ## run the laws on faithful conversions of random networks, which none may accuse
	$(BIN)/python -m benchmarks.false_alarms

wheel: venv ## build the wheel into dist/
	$(BIN)/python -m build --wheel --no-isolation

docs: venv ## write the generated parts of the README and CONTRIBUTING again
	$(BIN)/python tools/documentation.py --write README.md CONTRIBUTING.md docs/verdict.md

constraints: venv ## write the versions that are installed into constraints.txt
	@echo "# Exact versions of everything that 'make venv' installs, by name. Made by: make constraints" > constraints.txt
	@$(BIN)/python -m pip list --format=freeze --exclude-editable | sed -E 's/\+cpu$$//' \
	  | grep -vE '^(pip|setuptools)==' >> constraints.txt

clean: ## remove the environment, the demo's files and the caches
	rm -rf $(VENV) $(DEMO) build dist .pytest_cache .mypy_cache .ruff_cache
