# The two commands: `make book` and `make test`. `make help` lists the rest.
PYTHON  ?= python3
PROFILE ?= quick
VENV    := .venv
RUN     := $(VENV)/bin/python
.DEFAULT_GOAL := help
.PHONY: help venv book pdf test lint clean

help: ## show this list
	@awk -F':.*## ' '/^[a-z]+:.*## / {printf "make %-6s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

venv: $(VENV)/installed ## make .venv with everything in it (about 2 minutes, 6.5 GB)

# the stamp is written last: an interrupted installation is finished by the next call
$(VENV)/installed: requirements.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 10) or sys.exit("error: expected Python 3.10 or later, found %d.%d: name another one, make PYTHON=python3.12" % sys.version_info[:2])'
	$(RUN) -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet -r requirements.txt
	$(RUN) -m pip install --quiet --no-deps -e .
	touch $@

book: venv ## execute the chapters, render them to _build/html/index.html (PROFILE=quick|tiny|full)
	$(RUN) -m wsol_lib book --profile $(PROFILE)

pdf: venv ## print the built book to _build/html/wsol-book.pdf (needs chromium)
	$(RUN) -m wsol_lib.book.pdf

# a process a core, each with one thread; who is done takes over what another one has left
test: venv ## run the tests; those of the built pages need make book first, and chromium
	OMP_NUM_THREADS=1 $(RUN) -m pytest -n logical --maxprocesses 8 --dist worksteal

lint: venv ## check and format with ruff, strip notebook outputs
	$(RUN) -m pip install --quiet pre-commit
	$(RUN) -m pre_commit run --all-files

clean: ## remove everything that was built; .venv stays
	rm -rf _build
