# Everything runs in one environment, made and kept up to date by tools/environment.py.
#   PYTHON       the interpreter it is made from: 3.11 or 3.12
#   VENV         its folder; VENV=none uses PYTHON as it is, installs nothing and needs no network
#   TORCH_INDEX  an extra wheel index, to get a CPU build of torch on Linux
PYTHON ?= python3
VENV ?= .venv
TORCH_INDEX ?=
# Of `make gpu`.
PART ?= kernels
RESULTS ?= benchmarks/results

# More threads than this slow down the tests' small tensors.
export OMP_NUM_THREADS ?= 2
# Waiting threads that spin long slow everything down beside another busy process (docs/log.md).
export GOMP_SPINCOUNT ?= 10000
ifeq ($(VENV),none)
RUN := $(PYTHON)
export PYTHONPATH := $(CURDIR)$(if $(PYTHONPATH),:$(PYTHONPATH))
else
RUN := $(VENV)/bin/python
# Where it is set, each of the hundreds of processes would compile torch and the others anew, for 15 seconds.
unexport PYTHONDONTWRITEBYTECODE
endif

.PHONY: help environment demo lint test peers test-all bench gpu clean
.DEFAULT_GOAL := help

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo "variables: PYTHON=$(PYTHON) VENV=$(VENV) TORCH_INDEX=$(TORCH_INDEX)"

environment: ## make or update the Python environment and the C++ extensions
	@command -v $(PYTHON) >/dev/null || { echo "megasbp: PYTHON=$(PYTHON) is not a program; set it to a Python 3.11 or 3.12"; exit 2; }
	@$(PYTHON) tools/environment.py --venv "$(VENV)" --torch-index "$(TORCH_INDEX)"

demo: environment ## the whole method on a small real corpus, on a CPU; ends with the report
	@$(RUN) tools/fetch_demo_corpus.py corpora/demo
	@$(RUN) -m megasbp run configs/demo.toml

lint: environment ## formatting, lint, types, order of imports
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m mypy
	$(RUN) -c "from importlinter.cli import lint_imports_command; lint_imports_command()"

# Tests share the cores, a file a worker; no test asks for a time that company would spoil.
PARALLEL = -n auto --dist loadfile --no-loadscope-reorder --durations=25
test: lint ## lint, and the tests without the slow ones
	OMP_NUM_THREADS=1 $(RUN) -m pytest -m "not slow" $(PARALLEL)

peers: environment ## add what the slow tests and the benchmarks compare with
	@$(PYTHON) tools/environment.py --venv "$(VENV)" --torch-index "$(TORCH_INDEX)" --peers

test-all: peers lint ## lint, and every test
	OMP_NUM_THREADS=1 $(RUN) -m pytest $(PARALLEL)

bench: peers ## measure beside the tools people use; results in benchmarks/results
	@$(RUN) tools/fetch_demo_corpus.py corpora/demo
	@$(RUN) -m megasbp run configs/demo.toml --until train-baseline
	$(RUN) tools/benchmark.py all
	$(RUN) tools/benchmark.py generate configs/demo.toml --maximum-tokens 254 \
	    --checkpoint "$$(ls -d runs/demo/seed-0/train-baseline-*/checkpoints/step-* | tail -n 1)"

# Without a GPU a model that a CPU can train stands for the 3B one.
GPU_RECIPE = configs/$(shell $(RUN) -c "import torch; print('sbp_3b_200b' if torch.cuda.is_available() else 'demo')").toml
gpu: $(if $(filter train,$(PART)),environment,peers) ## on a GPU: PART=kernels (tests, times), train (steps of the 3B model), peers (beside others')
	@$(RUN) -c "import torch; print('megasbp:', torch.cuda.get_device_name() if torch.cuda.is_available() else \
	f'torch {torch.__version__} sees no CUDA device (needed: an NVIDIA GPU, its driver, a CUDA build of torch); the CPU part runs')"
ifeq ($(PART),kernels)
	$(RUN) -m pytest tests/kernels
	$(RUN) tools/benchmark.py kernels --results $(RESULTS)
else ifeq ($(PART),train)
	$(RUN) tools/benchmark.py train $(GPU_RECIPE) --no-peers --results $(RESULTS)
else ifeq ($(PART),peers)
	$(RUN) tools/benchmark.py train $(GPU_RECIPE) --results $(RESULTS)
else
	@echo "megasbp: PART=$(PART); allowed: kernels, train, peers"; exit 2
endif

clean: ## remove what was built; leaves the environment, corpora/ and runs/
	rm -rf build dist megasbp.egg-info megasbp/_C.*.so kernels/_cpu.*.so .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
	find . -path ./$(VENV) -prune -o -name __pycache__ -type d -prune -exec rm -rf {} +
