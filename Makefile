# Every target but `gpu` sets up what it needs: a machine with make and Python 3.11, 3.12 or 3.13 is enough.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Written when set-up is complete, so that an interrupted one starts again and a finished one never does
# until the pinned packages change.
READY := $(VENV)/ready
# Tests run in processes beside one another; those on the Ray cluster stay in one (tests/conftest.py). The
# quick ones compute all the time; of all, one in ten seconds is waited, which a third one on two cores uses.
BESIDE := --dist loadgroup --numprocesses
# Imports are most of what a short-lived process does: what was compiled is kept.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test check stack gpu lock clean help

help:
	@echo "make demo    restore a rainy bucket end to end on this machine (2 minutes after set-up)"
	@echo "make test    run every test"
	@echo "make check   lint, format, types and the tests that need no Ray cluster and are not long"
	@echo "make stack   run an object store, Ray and MLflow on loopback until Ctrl-C"
	@echo "make gpu     test, check, time and train on this machine's GPU, with the packages it has"
	@echo "make lock    pin the newest packages that fit pyproject.toml"
	@echo "make clean   remove the environment and everything the targets made"

demo: $(READY)
	@exec $(BIN)/python -m infra.demo

test: $(READY)
	@$(BIN)/python --version
	@$(BIN)/python -m pytest $(BESIDE) 3 --durations=20 $(ARGS)

check: $(READY)
	@$(BIN)/python --version
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest $(BESIDE) 2 -m "not cluster and not long" $(ARGS)

stack: $(READY)
	@exec $(BIN)/python -m infra.stack

# A machine that is lent for minutes brings torch for its GPU and often nothing to install from.
gpu:
	@$(PYTHON) -m infra.gpu $(ARGS)

# torch comes first and by pip, with whatever its build for this machine needs (CUDA libraries or none);
# everything else is pinned, so nothing is left to resolve. uv is the fast way; pip the sure one, for
# package indexes that are configured for pip alone.
$(READY): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' || \
	  { echo "SPAIR needs Python 3.11 to 3.13; this is `$(PYTHON) --version 2>&1`. Try: make $(MAKECMDGOALS) PYTHON=python3.12" >&2; exit 1; }
	@test -e $@ || $(PYTHON) -m venv --clear $(VENV) || \
	  { echo "Python's venv module is missing; on Debian and Ubuntu: apt-get install python3-venv" >&2; exit 1; }
	@echo "Setting up $(VENV): about a minute here once the packages are at hand"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint requirements.lock torch uv
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --compile-bytecode -r requirements.lock || \
	  $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -r requirements.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

# What torch's CUDA build needs is left out: set-up installs torch with its own needs, CUDA or not. The
# compiler of kernels/*.cu, which the tests call, stays.
lock: $(READY)
	$(BIN)/uv pip compile pyproject.toml --extra dev --quiet --upgrade --python-version 3.11 \
	  --python-platform x86_64-unknown-linux-gnu --no-header --no-annotate --no-emit-index-url --no-emit-find-links \
	  --output-file requirements.lock
	sed -i -E '/^nvidia-cuda-nvrtc==/b; /^(nvidia-|cuda-|triton==)/d; s/\+cpu$$//' \
	  requirements.lock

clean:
	rm -rf $(VENV) .demo .stack .gpu build *.egg-info .pytest_cache .mypy_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
