# All that is needed is make, a shell and Python 3.11 or newer: every target first sets up .venv,
# and does so again when pyproject.toml or constraints.txt change. PYTHON=... names another Python.

VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/ready

PIP := $(BIN)/python -m pip install -qq --disable-pip-version-check -c constraints.txt

FORMS = $(filter-out %/config.yml,$(wildcard .github/ISSUE_TEMPLATE/*.yml))
schema = echo "check-jsonschema $(1)" && $(BIN)/check-jsonschema --default-filetype yaml \
  --builtin-schema vendor.$(1) $(2)

export HF_HUB_OFFLINE := 1
MAKEFLAGS += --no-print-directory

.PHONY: help demo tiny test quick coverage stress check lint types wheel docs pages format clean

help: ## list these targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-8s %s\n", $$1, $$2 }' Makefile

demo: $(READY) ## caption and question the sample video with the bundled tiny model
	$(BIN)/malmm caption examples/shapes.mp4 --model tiny
	$(BIN)/malmm ask examples/shapes.mp4 "what does the red star do?" --model tiny --frames 60

tiny: $(READY) ## make the bundled model from nothing, in some hours; goes on where it was stopped; WORK=FOLDER
	$(BIN)/python examples/make_tiny build/tiny $(if $(WORK),--work $(WORK))

# one thread in each process: the tests' models are too small to be shared out among several
test: $(READY) ## run the tests; ARGS="-k memory" goes to pytest
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto $(ARGS)

# the most valuable files first: layout, memory, parity with the reference, settings, formats, files
QUICK := test_layout.py memory/test_bank.py models/instructblip/test_reference_malmm_memory.py \
  models/instructblip/test_reference_malmm_qformer.py models/test_families.py test_formats.py \
  files/test_atomic.py media/test_sampling.py checkpoints/test_preprocessor.py

quick: $(READY) ## only the most valuable tests; ARGS goes to pytest
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 $(addprefix tests/,$(QUICK)) $(ARGS)

# Subprocesses are measured too, which slows them down: tests that count seconds may fail here, so that
# only the coverage is judged, by fail_under of pyproject.toml.
coverage: $(READY) ## all tests again with their coverage, which fails below the threshold
	-OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --cov --cov-report= --cov-fail-under=0 $(ARGS)
	$(BIN)/python -m coverage report --skip-covered

stress: $(READY) ## kill, damage, soak and scale batches, for an hour and more
	for run in kill signals mutate containers names kept models many soak cluster; do \
	  echo "stress.$$run:"; PYTHONPATH=tests $(BIN)/python -m stress.$$run || exit 1; done

check: ## all that continuous integration runs: lint, types, test, wheel, coverage
	+@.ci/run

lint: $(READY) ## formatting, ruff's rules, shell scripts, workflows, the Dockerfile
	$(BIN)/python -m ruff format --check .
	$(BIN)/python -m ruff check .
	$(BIN)/shellcheck .ci/* tests/*.sh
	$(BIN)/hadolint Dockerfile
	$(BIN)/zizmor --offline --quiet --persona pedantic .github
	@$(call schema,github-workflows,.github/workflows/*.yml)
	@$(call schema,github-issue-forms,$(FORMS))
	@$(call schema,github-issue-config,.github/ISSUE_TEMPLATE/config.yml)
	@$(call schema,dependabot,.github/dependabot.yml)
	@$(call schema,citation-file-format,CITATION.cff)

types: $(READY) ## mypy --strict
	$(BIN)/python -m mypy

wheel: $(READY) ## build the wheel, install it elsewhere and run it there; DIST=dist keeps it
	tests/check_wheel.sh $(BIN)/python $(DIST)

docs: $(VENV)/docs ## the documentation as a site, in build/docs; a broken link is an error
	$(BIN)/python -m sphinx -q -E -W --keep-going --nitpicky -d build/doctrees docs build/docs

pages: $(READY) ## write the generated parts of docs/: commands.md, malmm.1, code.md, json.md, drawing
	PYTHONPATH=. $(BIN)/python tests/test_docs.py
	PYTHONPATH=.:tests $(BIN)/python tests/test_json.py

format: $(READY) ## put the code into ruff's format and mend what ruff can
	$(BIN)/python -m ruff check --fix .
	$(BIN)/python -m ruff format .

clean: ## remove what the other targets made, .venv included
	rm -rf $(VENV) build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis .coverage*
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/python:
	@for python in $(PYTHON) python3 python3.13 python3.12 python3.11; do \
	  "$$python" -c 'import ensurepip, sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
	    && exec "$$python" -m venv --clear $(VENV); \
	done; \
	echo "error: no Python >= 3.11 with venv and ensurepip (Debian, Ubuntu: install python3-venv)" >&2; \
	exit 1

$(READY): $(BIN)/python pyproject.toml constraints.txt
	@echo "setting up $(VENV): this downloads PyTorch and takes a few minutes"
	@$(PIP) -e '.[dev]'
	@touch $(READY)

# what the site needs, without malmm and so without PyTorch
DOCS := import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["project"]["optional-dependencies"]["docs"])

$(VENV)/docs: $(BIN)/python pyproject.toml constraints.txt
	@$(PIP) $$($(BIN)/python -c '$(DOCS)')
	@touch $@
