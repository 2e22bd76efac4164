PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: reproduce look test lab docs clean

reproduce: $(READY)  ## run every table notebook at cpu scale and write the report; ARGS="--scale smoke" is the quick look
	$(BIN)/signbook reproduce --fetch --scale cpu $(ARGS)

test: export OMP_NUM_THREADS = 1  # two workers on two cores: threads of theirs would only wait for each other
test: $(READY)  ## notebooks in step with the package, notebook tests, pytest
	SIGNBOOK_OUTPUTS=$(abspath $(VENV))/test-outputs PATH="$(abspath $(BIN)):$$PATH" $(BIN)/nbdev_test --n_workers 2
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder $(ARGS)

look: $(READY)  ## the report of the reference results that come with the clone, in a browser
	SIGNBOOK_OUTPUTS=$(VENV)/look $(BIN)/signbook report
	-$(BIN)/python -m webbrowser -t "$(CURDIR)/$(VENV)/look/report.html"

lab: $(READY)  ## open JupyterLab at the first notebook
	$(BIN)/jupyter lab nbs/000_start.ipynb

docs: $(READY)  ## the notebooks, guides, API and report as a site in _docs
	NO_MKDOCS_2_WARNING=1 PATH="$(abspath $(BIN)):$$PATH" $(BIN)/mkdocs build --quiet

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit("signbook needs Python 3.11 or newer; try: make PYTHON=python3.12" if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

clean:  ## remove the environment (data and results stay)
	rm -rf $(VENV)
