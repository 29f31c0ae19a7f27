# Each target works from a bare checkout: it makes .venv first, with Python 3.11, 3.12 or 3.13.
#   make book        build the pages into _build/html, no warning allowed
#   make test        run every test and every notebook
#   make notebooks   run every notebook again and save its outputs; draw the cover, write
#                    the table of the cheat-sheet and the exercises
#   make lint        check style and types          make format   mend the style
#   make bench       measure the speed claims again; takes eleven minutes on two quiet cores
#   make serve       show the pages at http://localhost:8000
#   make clean       remove what the other targets built, except .venv
# On Linux without a GPU, this fetches PyTorch's small CPU build (see README):
#   make TORCH_INDEX=https://download.pytorch.org/whl/cpu test

PYTHON ?= python3
TORCH_INDEX ?=
JOBS ?= 2
BIN := .venv/bin
READY := .venv/ready
NOTEBOOKS = $(sort $(wildcard book/*/*.ipynb))
CODE := companion tests book

.PHONY: book test notebooks lint format bench serve clean

book: $(READY)
	$(BIN)/jupyter-book build . -W -n --keep-going
	@test -f _build/html/index.html || { echo "No _build/html/index.html: is jupyter-book older than 2?"; exit 1; }
	@echo "The book is at file://$(CURDIR)/_build/html/index.html"

test: $(READY)
	$(BIN)/pytest -n $(JOBS) --dist loadfile --nbval --nbval-current-env --nbval-sanitize-with tests/sanitize.cfg \
		tests companion/src book

notebooks: $(READY)
	$(BIN)/python tests/write_exercises.py
	$(BIN)/python tests/run_notebooks.py $(NOTEBOOKS)
	$(BIN)/python tests/draw_cover.py
	$(BIN)/python tests/write_cheat_sheet.py

lint: $(READY)
	$(BIN)/ruff check $(CODE)
	$(BIN)/ruff format --check $(CODE)
	$(BIN)/mypy

format: $(READY)
	$(BIN)/ruff check --fix $(CODE)
	$(BIN)/ruff format $(CODE)

bench: $(READY)
	$(BIN)/python companion/benchmarks/influence.py
	$(BIN)/python companion/benchmarks/audit.py

serve: book
	$(BIN)/python -m http.server --directory _build/html 8000

clean:
	rm -rf _build .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find companion tests -name __pycache__ -prune -exec rm -rf {} +

$(READY): requirements.txt companion/pyproject.toml
	@$(PYTHON) -c 'import sys; (3, 11) <= sys.version_info < (3, 14) or sys.exit("Expected Python 3.11, 3.12 or 3.13; got " + sys.version.split()[0] + ". Name another one: make PYTHON=python3.12")'
	$(PYTHON) -m venv .venv
	$(if $(TORCH_INDEX),$(BIN)/pip install --index-url $(TORCH_INDEX) $(shell grep '^torch==' requirements.txt))
	$(BIN)/pip install --disable-pip-version-check -r requirements.txt
	@touch $(READY)
