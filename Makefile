# make demo: from nothing to scored variants. make test: from nothing, all tests. Everything is installed in .venv.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.PHONY: help venv demo test soak gpu bench lint format types lock clean

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --no-input
DEMO := demo-output
EXAMPLE := examples/splice
SOURCES := engine schemas jobs tests benchmarks examples

help: ## show this list
	@sed -n 's/^\([a-z]*\):.*## /\1\t/p' Makefile | expand -t 10

# A Python of 3.11 or 3.12 that can make virtual environments; a name on PATH may be a stub that does not run.
define FIND_PYTHON
for name in $(PYTHON) python3.11 python3.12 python3; do
  if "$$name" -c 'import ensurepip, sys, venv; sys.exit(sys.version_info[:2] not in ((3, 11), (3, 12)))' 2>/dev/null; then
    found=$$name; break
  fi
done
if [ -z "$${found:-}" ]; then
  echo "replisome needs Python 3.11 or 3.12 with venv (Debian: apt-get install python3-venv); set PYTHON=... to name one" >&2
  exit 2
fi
endef
export FIND_PYTHON

# Stamps are written last, so a broken-off installation is done again. torch stands apart: its CPU and GPU builds share
# a version but not a hash, and its own metadata pins what it needs.
$(VENV)/core.stamp: requirements.lock requirements-torch.lock pyproject.toml
	@echo "installing into $(VENV) ..."
	@eval "$$FIND_PYTHON"; [ -x $(BIN)/python ] && $(BIN)/python -c pass || "$$found" -m venv --clear $(VENV)
	@$(PIP) install -qq --require-hashes --no-deps -r requirements.lock
	@$(PIP) install -qq -r requirements-torch.lock
	@$(PIP) install -qq --no-deps --no-build-isolation -e .
	@touch $@

$(VENV)/dev.stamp: requirements-dev.lock $(VENV)/core.stamp
	@echo "installing what tests and Ray need ..."
	@$(PIP) install -qq --require-hashes --no-deps -r requirements-dev.lock
	@touch $@

venv: $(VENV)/dev.stamp ## install everything into .venv

demo: $(VENV)/core.stamp ## score real human variants; a second run is quick
	@$(BIN)/replisome score-variants $(EXAMPLE)/variants.vcf.gz --reference $(EXAMPLE)/reference.fa \
	  --genes $(EXAMPLE)/genes.txt --model splice-mini --exon-sites --reference-psi REF_PSI -o $(DEMO) \
	  --keep-info PANEL,GCHROM,GPOS,GSTRAND,EXON,DPSI,REF_PSI,CLASS,CONSEQUENCE,PHYLOP \
	  --compare $(EXAMPLE)/panels.yaml
	@echo
	@echo "scored VCF  $(DEMO)/scores.vcf.gz"
	@echo "table       $(DEMO)/data/ (Parquet)"
	@echo "report      $(DEMO)/report.html"

test: $(VENV)/dev.stamp ## run all tests
	@for tool in bcftools tabix samtools mmseqs; do command -v $$tool >/dev/null || { echo "the tests need $$tool on PATH" \
	  "(Debian: apt-get install bcftools tabix samtools mmseqs2)" >&2; exit 2; }; done
	@$(BIN)/python -m pytest -m "not soak" --timeout=300 $(ARGS)

soak: $(VENV)/dev.stamp ## run the long tests
	@$(BIN)/python -m pytest -m soak --timeout=3600 $(ARGS)

# On a machine with a GPU build of torch of its own and no way to install more: make gpu GPU_PYTHON=python3
GPU_PYTHON = $(BIN)/python
gpu: $(if $(filter $(BIN)/python,$(GPU_PYTHON)),$(VENV)/dev.stamp) ## run the tests and the benchmark that need a CUDA device
	@$(GPU_PYTHON) -m pytest -m gpu --timeout=600 tests/engine/models tests/engine/encoders tests/engine/scoring \
	  tests/engine/interpret $(ARGS)
	@$(GPU_PYTHON) -m benchmarks.cones --device cuda

bench: $(VENV)/dev.stamp demo ## run the comparisons behind the figures in benchmarks/results (about an hour)
	@$(BIN)/python -m benchmarks.splice_accuracy $(DEMO)
	@$(BIN)/python -m benchmarks.conv_cpu
	@$(BIN)/python -m benchmarks.flat_memory
	@$(BIN)/python -m benchmarks.overhead

lint: $(VENV)/dev.stamp ## check style and format
	@$(BIN)/ruff check $(SOURCES)
	@$(BIN)/ruff format --check $(SOURCES)

format: $(VENV)/dev.stamp ## mend style and format
	@$(BIN)/ruff check --fix $(SOURCES)
	@$(BIN)/ruff format $(SOURCES)

types: $(VENV)/dev.stamp ## check types
	@$(BIN)/mypy

# Every platform's and version's hashes in one file. Left out with torch: what only its GPU builds need.
TORCH_ONLY := torch triton cuda-bindings cuda-pathfinder cuda-toolkit $(addprefix nvidia-,cublas cuda-cccl cuda-cupti \
  cuda-nvrtc cuda-runtime cudnn-cu13 cufft cufile curand cusolver cusparse cusparselt-cu13 nccl-cu13 nvjitlink nvshmem-cu13 nvtx)
COMPILE = $(BIN)/uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-header --no-annotate \
  $(TORCH_ONLY:%=--no-emit-package %) pyproject.toml

lock: $(VENV)/dev.stamp ## write the lock files anew (versions stay unless pyproject.toml moves them)
	@$(PIP) install -qq uv
	@$(COMPILE) $(foreach extra,ray s3 imaging tune models explain fast dev,--extra $(extra)) -o requirements-dev.lock
	@$(COMPILE) -c requirements-dev.lock -o requirements.lock

clean: ## remove the environment, caches and the demo's output
	@rm -rf $(VENV) $(DEMO) build dist *.egg-info .mypy_cache .ruff_cache .hypothesis .pytest_cache
	@find engine schemas jobs tests benchmarks examples -name __pycache__ -type d -prune -exec rm -rf {} +
