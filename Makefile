# The two commands of this project, and what they are made of. Needs Python 3.11 or later and a package index.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin

.PHONY: dev test check bench clean

dev: .venv/installed ## Try it: a real OpenBao, sample secrets, the service, one signed request
	@exec $(BIN)/woodpecker-vault dev

test: check ## Every check: format, lint, types, tests against a real OpenBao, coverage
	$(BIN)/coverage erase
	$(BIN)/coverage run -m pytest --numprocesses 2 --dist loadfile
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report

check: .venv/installed
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

bench: .venv/installed ## What the service costs, as a ratio to the bare calls to Vault that it makes
	$(BIN)/python benchmarks/overhead.py

clean:
	rm -rf .venv .coverage* .mypy_cache .pytest_cache .ruff_cache .hypothesis

.venv/installed: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@
