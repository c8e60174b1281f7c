# `make demo` and `make test` need make and Python 3.11 or newer; the rest they install into .venv.
PYTHON ?= $(shell for p in python3 python3.14 python3.13 python3.12 python3.11 python3; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && break; done; echo $$p)
BIN = .venv/bin
PIP = $(BIN)/python -m pip --disable-pip-version-check --quiet install
OURS = --no-deps --no-build-isolation -e .
# Where there is no C compiler, the installation goes on without it, and Python does the same.
COMPILED = $(wildcard src/alpaca_broker/market/*.c)
MADE = $(COMPILED:.c=*.so)
LOCK = $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	--no-emit-index-url --no-header pyproject.toml $(ARGS)
# Tests run side by side; most of their time is waiting.
JOBS ?= $(shell n=$$(getconf _NPROCESSORS_ONLN 2>/dev/null || echo 2); echo $$((n + 1 > 6 ? 6 : n + 1)))
.PHONY: help demo run test soak bench check fix lock contract clean

help: ## list what there is
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/make \1 - \2/p' Makefile

demo: .venv/run ## everything at once, without keys; options go into ARGS="..."
	@$(BIN)/alpaca-broker demo $(ARGS)

run: .venv/run ## the broker, with the keys in configs/.env
	@$(BIN)/alpaca-broker run $(ARGS)

test: check ## all checks and all tests
	$(BIN)/pytest -n $(JOBS) $(ARGS)

soak: .venv/dev ## the long versions of the storms: more seeds, more kills, real lengths
	$(BIN)/pytest --soak -m soak -s -o timeout=3600 $(ARGS)

bench: .venv/dev ## how fast it is, beside its rivals, into bench/results.md; ARGS=--short for a sketch
	@$(BIN)/python -m bench $(ARGS)

check: .venv/dev ## formatting, lint and types only
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy

fix: .venv/dev ## repair formatting and what lint can
	$(BIN)/ruff check --fix . ; $(BIN)/ruff format .

lock: .venv/dev ## bring the lock files in line with pyproject.toml; ARGS=--upgrade for newer packages
	$(LOCK) --group build -o requirements.lock
	$(LOCK) --group dev -c requirements.lock -o requirements-dev.lock
	@$(MAKE) --no-print-directory main/alpaca_broker/requirements.txt

main/alpaca_broker/requirements.txt: requirements.lock
	@{ echo '# Made from requirements.lock by `make lock`. Install it from the repository root:'; \
	echo '# the last line is the project itself.'; \
	sed -n 's/^\([a-z][^ ]*==.*[^ ]\) *\\$$/\1/p' $<; echo '-e .'; } >$@

contract: .venv/dev ## bring docs/asyncapi.yaml in line with the message types
	$(BIN)/python docs/make_asyncapi.py >docs/asyncapi.new && mv docs/asyncapi.new docs/asyncapi.yaml

clean: ## remove what was installed and cached
	rm -rf $(MADE) .venv .mypy_cache .pytest_cache .ruff_cache .hypothesis

.venv/run: requirements.lock pyproject.toml $(COMPILED) | $(BIN)/pip
	@echo 'installing what it needs into .venv ...'
	@$(PIP) --require-hashes -r requirements.lock && rm -f $(MADE) && $(PIP) $(OURS) && touch $@

.venv/dev: requirements-dev.lock pyproject.toml $(COMPILED) | $(BIN)/pip
	@echo 'installing what it needs, and what the tests need, into .venv ...'
	@$(PIP) --require-hashes -r requirements-dev.lock && rm -f $(MADE) && $(PIP) $(OURS) && touch $@ .venv/run

$(BIN)/pip:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { exec >&2; echo \
	'Python 3.11 or newer is needed, and $(PYTHON) is none: install it, or name it: make PYTHON=...'; exit 1; }
	@$(PYTHON) -m venv .venv
