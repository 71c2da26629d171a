# The short commands. A fresh machine needs make and Python 3.11, 3.12 or 3.13, nothing else.
#
#   make demo      compress and decompress sample_images/, and print what each picture cost
#   make test      lint, types, tests (what .ci/run runs)
#   make lint      ruff and mypy only
#   make format    let ruff rewrite the files
#   make install   everything for development, into .venv
#   make results KODAK=DIR CID22=DIR   measure again, both sets or one; ONLY='diveq-e5 webp' these
#                    codecs only, JOBS=2 two at once; then results-table, results-plot
#   make clean     remove what the commands above left behind, except .venv
#
# Another environment or interpreter: make test VENV=/tmp/venv PYTHON=python3.12
# Where pip finds its packages is pip's own configuration (PIP_INDEX_URL and the like). On a machine
# without a GPU, an index of CPU builds of torch saves some gigabytes.

VENV   ?= .venv
# Python 3.11 first: it is what constraints.txt was tested with.
PYTHON ?= $(shell for p in python3.11 python3 python3.12 python3.13; do \
	$$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2>/dev/null \
	&& { echo $$p; break; }; done)

BIN     := $(VENV)/bin
PIP     := $(BIN)/python -m pip install --disable-pip-version-check --quiet -c constraints.txt
DEMO    := demo
JOBS    ?= 1
SAMPLES := $(wildcard sample_images/*.png)

.DELETE_ON_ERROR:
.PHONY: demo test lint format install clean results results-table results-plot

demo: $(VENV)/.installed-core
	@mkdir -p $(DEMO)/compressed $(DEMO)/decompressed
	$(BIN)/diveq compress $(SAMPLES) -o $(DEMO)/compressed -f
	$(BIN)/diveq decompress $(SAMPLES:sample_images/%.png=$(DEMO)/compressed/%.dvq) \
		-o $(DEMO)/decompressed -f
	@echo
	@cat $(SAMPLES) | wc -c | xargs printf 'sample_images/      the originals, %d bytes as PNG\n'
	@cat $(DEMO)/compressed/*.dvq | wc -c | xargs printf '$(DEMO)/compressed/    %d bytes as .dvq\n'
	@echo '$(DEMO)/decompressed/  what came back: look at these beside the originals'

test: lint
	$(BIN)/python -m pytest

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

results: $(VENV)/.installed-dev
	@test -n '$(KODAK)$(CID22)' \
		|| { echo 'Say where the pictures are: make results KODAK=DIR CID22=DIR'; exit 2; }
	$(BIN)/python scripts/results.py measure --jobs $(JOBS) $(if $(ONLY),--only $(ONLY)) \
		$(if $(KODAK),--kodak '$(KODAK)') $(if $(CID22),--cid22 '$(CID22)')

results-table: $(VENV)/.installed-dev
	$(BIN)/python scripts/results.py table

results-plot: $(VENV)/.installed-dev
	$(BIN)/python scripts/results.py plot

format: $(VENV)/.installed-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

install: $(VENV)/.installed-dev

# torch goes first, at the pinned version: pip then has no reason to look for a larger build of it.
$(VENV)/.installed-core: pyproject.toml constraints.txt | $(BIN)/python
	@echo 'Installing diveq and what it needs into $(VENV) (some minutes, only once)'
	$(PIP) torch
	$(PIP) -e .
	@touch $@

$(VENV)/.installed-dev: pyproject.toml constraints.txt | $(VENV)/.installed-core
	$(PIP) -e '.[cluster,eval,dev]'
	@touch $@ $(VENV)/.installed-core

$(BIN)/python:
	@test -n '$(PYTHON)' || { echo 'No Python 3.11, 3.12 or 3.13 found; name one: make PYTHON=...'; exit 1; }
	$(PYTHON) -m venv $(VENV)

clean:
	rm -rf $(DEMO) build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache
	find diveqcodec models scripts tests -name __pycache__ -type d -prune -exec rm -rf {} +
