# `make` says what there is. Everything is installed into .venv, from the lock files; nothing leaves this folder but
# the Debian packages that tools/system-packages names before it installs them.

.DEFAULT_GOAL := help
.PHONY: help setup demo test lint bench lock docs protos deb rpm clean system-run system-test system-packages

BIN := .venv/bin
# What pytest is called with: make test ARGS='-k gpu'. Three files at once: much of a test is waiting.
ARGS := -n 3 --dist loadfile --no-loadscope-reorder

SHELL_FILES = $$(git ls-files --cached --others --exclude-standard \
	| while read -r file; do [ -f "$$file" ] && head -c 64 "$$file" | head -n 1 | tr -d '\0' \
	| grep -qE '^\#!.*[/ ](ba|da)?sh( |$$)' && echo "$$file"; done)

help: ## Show the targets.
	@awk -F':.*## ' '/^[a-z]+:.*## / {printf "make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: system-test .venv/.dev ## Install what is missing: Debian packages (as root) and .venv.

demo: system-run .venv/.run ## Boot a real VM through the whole path and take everything down again (as root).
	@$(BIN)/cfctl demo

# Thousands of processes import cfctl, and hundreds what stands beside the tests: where the environment forbids
# bytecode, each would compile it again.
test: system-test .venv/.dev ## Run all tests (as root; otherwise the system tests are skipped).
	@$(BIN)/python -m compileall -q cfctl tests
	@env -u PYTHONDONTWRITEBYTECODE $(BIN)/python -m pytest $(ARGS)

lint: .venv/.dev ## Check style, types and shell scripts.
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@$(BIN)/mypy
	@$(BIN)/shellcheck $(SHELL_FILES)

bench: system-test .venv/.dev ## Measure what docs and tests promise about speed (as root).
	@for program in bench/*.py; do $(BIN)/python -m bench.$$(basename $$program .py) || exit 1; done

docs: .venv/.dev ## Write the generated pages again.
	@$(BIN)/python tools/config_page.py

protos: .venv/.dev ## Write cfctl/v1/ from proto/cfctl/v1/.
	@tools/protos

lock: ## Choose the newest versions that fit, and write the lock files.
	@tools/lock

deb: system-packages .venv/.run ## Make Debian packages in dist/: TARGET=debian12, debian13, ubuntu22.04 or ubuntu24.04.
	@$(BIN)/python -m tools.packages deb $(TARGET)

rpm: system-packages .venv/.run ## Make RPM packages in dist/: TARGET=el8, el9, el10, fedora42 or fedora43.
	@$(BIN)/python -m tools.packages rpm $(TARGET)

clean: ## Remove everything that was built here.
	rm -rf .venv build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

system-run:
	@tools/system-packages run

system-packages:
	@tools/system-packages packages

system-test:
	@tools/system-packages test

.venv/.run: requirements.lock pyproject.toml tools/virtualenv | system-run
	@tools/virtualenv run
	@touch $@

# What is installed for development contains what is needed to run.
.venv/.dev: requirements-dev.lock pyproject.toml tools/virtualenv | system-test
	@tools/virtualenv dev
	@touch $@ .venv/.run
