# make help lists the commands. PYTHON=python3.12 chooses the interpreter of .venv; TORCH=1 adds torch for the tests.
VENV := .venv/bin
TEST_JOBS ?= 2

.DEFAULT_GOAL := help
.PHONY: help setup demo test soak lint format clean

help:
	@echo "make demo      pre-train on the embedded people: picture panels and a verdict in a new folder under runs/"
	@echo "make test      lint and tests; TORCH=1 adds the tests that compare with torch; TEST_JOBS=0 runs them in one process"
	@echo "make soak      the tests that take many minutes: the demo's verdicts, joints and search of drawn people, more meshes, a step compiled for TPUs and an H100, a real SLURM, an installation"
	@echo "make lint      check style and formatting"
	@echo "make format    rewrite the files in the project's format"
	@echo "make setup     build .venv, or bring it up to date; the others call it. PYTHON=python3.12 chooses the interpreter"
	@echo "make clean     remove .venv and caches; runs/ stays"

setup:
	@$(or $(PYTHON),python3) .ci/setup_venv.py $(if $(PYTHON),--chosen) $(if $(filter-out 0,$(TORCH)),--torch)

# A workdir that exists is resumed, never started anew: each demo gets its own. ARGS="--config.seed=1" overrides keys.
demo: setup
	$(VENV)/python -m hap_jax.main --config=configs/pretrain_demo.py \
	  --workdir=$(or $(WORKDIR),runs/demo-$(shell date -u +%Y%m%dT%H%M%SZ)) $(ARGS)

lint: setup
	$(VENV)/ruff check .
	$(VENV)/ruff format --check .

format: setup
	$(VENV)/ruff check --fix .
	$(VENV)/ruff format .

# Bytecode is kept, whatever the shell says: without it each of the many processes that tests start takes twice as
# long to import.
test soak: export PYTHONDONTWRITEBYTECODE :=

# The parity tests compile with all optimizations, the others compile faster. tests/conftest.py says why these are
# two sessions. ARGS are options for both, such as --cpu_limit=8.
PYTEST = $(VENV)/python -m pytest -n $(TEST_JOBS) --dist loadfile --no-loadscope-reorder --durations=15
test: lint
	$(PYTEST) tests/parity $(ARGS)
	$(PYTEST) --ignore=tests/parity $(ARGS)

soak: setup
	$(VENV)/python -m pytest -m soak $(ARGS)

clean:
	rm -rf .venv .pytest_cache .ruff_cache .hypothesis *.egg-info build dist
	find . -name __pycache__ -not -path './runs/*' -prune -exec rm -rf {} +
