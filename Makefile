# make setup | run | lint | check | test | browser | long | lab | bench | study | notebooks | book | editions | slides | bundle | clean
#   make run ARGS="--profile standard"     make setup PYTHON=python3.12     make setup TORCH_FLAGS="--index-url ..."
PYTHON ?= python3
TORCH_FLAGS ?=
ARGS ?=
# Tests that run at once, each with one thread: on two cores faster than one test with two.
JOBS ?= 2
PYTEST = OMP_NUM_THREADS=1 GDRT_PROFILE=quick $(PY) -m pytest -n $(JOBS)
VENV := .venv
PY := $(VENV)/bin/python
STAMP := $(VENV)/.installed

.PHONY: help setup run lint check test browser long lab bench study notebooks book editions slides bundle clean
.DELETE_ON_ERROR:

help:
	@head -n 2 Makefile

# Reinstalled only when the requirements change; written last, so that a broken installation is tried again.
$(STAMP): pyproject.toml constraints.txt
	@$(PY) -m pip --version >/dev/null 2>&1 || { \
	  $(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	    echo "gdrt_lite needs Python 3.11 or later, and $(PYTHON) is missing or older;" \
	         "install one and name it: make setup PYTHON=python3.11"; exit 1; }; \
	  $(PYTHON) -m venv --clear $(VENV) || { rm -rf $(VENV); \
	    echo "$(PYTHON) cannot make virtual environments (on Debian or Ubuntu: apt install python3-venv)."; exit 1; }; }
	$(PY) -m pip install --quiet --disable-pip-version-check $(TORCH_FLAGS) -c constraints.txt torch
	$(PY) -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev]"
	@touch $@

setup: $(STAMP)
	$(PY) -m gdrt_lite fetch

run: setup
	$(PY) -m gdrt_lite run $(ARGS)

# Style, types and spelling; the pre-commit hooks run the same four lines.
lint: $(STAMP)
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy
	$(PY) -m codespell_lib

# What to run after every change: no real model and no network, under three minutes on two cores.
check: lint
	$(PYTEST) -m "not slow and not model" tests $(ARGS)

test: setup
	$(PYTEST) -m "not long" --nbmake --nbmake-timeout=900 $(wildcard notebooks) tests $(ARGS)

# JupyterLab and the book in headless Chromium. Where there is none and none can be installed, the tests are skipped. A page may
# miss a click on a busy machine, so that what has failed is tried once more.
browser: $(STAMP)
	$(PY) -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[book,browser]"
	$(PY) scripts/chromium.py
	$(PY) scripts/book.py
	$(PY) -m pytest tests/test_browser.py $(ARGS) || $(PY) -m pytest --last-failed tests/test_browser.py $(ARGS)

# What takes many minutes: every architecture of transformers, and a run that is killed ten times.
long: setup
	$(PY) -m pytest -m long tests $(ARGS)

# JupyterLab with a copy of the course, in work/: answers stay there, and nothing that git knows changes. Without a network and
# without the model it starts all the same, since some notebooks need none. As root, Jupyter wants to be told so.
lab: $(STAMP)
	-$(PY) -m gdrt_lite fetch
	$(PY) scripts/editions.py --work work
	$(PY) -m jupyter lab --notebook-dir=work $(if $(filter 0,$(shell id -u 2>/dev/null)),--allow-root) $(ARGS)

bench: setup
	$(PY) -m benchmarks $(ARGS)
	$(PY) scripts/render_readme.py

study: setup
	$(PY) -m gdrt_lite study $(ARGS)

notebooks: setup
	$(PY) scripts/build_notebooks.py $(ARGS)
	$(PY) scripts/render_readme.py

# The executed course as a static site, _build/book/index.html. Nothing is run, and nothing is loaded from elsewhere.
book: $(STAMP)
	$(PY) -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[book]"
	$(PY) scripts/book.py $(ARGS)

# For a class: the student's notebooks without solutions, the instructor's with all.
editions: $(STAMP)
	$(PY) scripts/editions.py $(ARGS)

# The instructor's decks, as HTML pages that load nothing and as PDF, in _build/slides.
slides: $(STAMP)
	$(PY) scripts/slides.py

# For a room without a network: one folder with wheels, model, data and notebooks; `python install.py` in it installs.
bundle: $(STAMP)
	$(PY) scripts/bundle.py $(ARGS)

# Keeps .venv and the model cache: both are slow to fill.
clean:
	rm -rf build dist *.egg-info .pytest_cache .hypothesis .mypy_cache .ruff_cache
	find gdrt_lite tests scripts benchmarks notebooks \( -name __pycache__ -o -name .ipynb_checkpoints \) -prune -exec rm -rf {} + 2>/dev/null || true
