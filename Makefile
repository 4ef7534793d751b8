# make               install, then the whole pipeline: data -> prediction.tif
# make test          install, then all tests
# make bench         augmentation against the original's way, timed in one run
# DATA=folder of the three TIFF stacks, WORK=folder for all that a run makes, OUT=the predicted stack
# AUGMENT=, TILE=, TRAIN= further options of the three scripts, e.g. make TRAIN="--preset paper"

PYTHON ?= python3
VENV   ?= .venv
PY     := $(VENV)/bin/python
DATA   ?= $(if $(and $(wildcard data/train-volume.tif),$(wildcard data/train-labels.tif),$(wildcard data/test-volume.tif)),data,data/demo)
WORK   ?= results
OUT    ?= prediction.tif
AUGMENT ?=
TILE    ?=
TRAIN   ?= $(if $(filter data/demo,$(DATA)),--preset fast)

KIND := $(if $(filter data/demo,$(DATA)),the demo stack (synthetic; put your three TIFFs into data/ for your own),your stacks)

.PHONY: all test bench clean
.DELETE_ON_ERROR:

all: $(VENV)/installed $(if $(filter data/demo,$(DATA)),data/demo/train-volume.tif)
	@echo "== Data: $(DATA), $(KIND)"
	$(PY) augmentation.py --data "$(DATA)" --work "$(WORK)" $(AUGMENT)
	$(PY) preprocessing.py --work "$(WORK)" $(TILE)
	$(PY) train.py --work "$(WORK)" --out "$(OUT)" $(TRAIN)
	@echo "== Done with $(DATA), $(KIND)"

data/demo/train-volume.tif: | $(VENV)/installed
	$(PY) datasets.py demo --data data/demo

$(VENV)/installed: requirements.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
	  { echo "Python 3.10 or newer is needed; name it with make PYTHON=python3.12"; exit 2; }
	@echo "== Installing into $(VENV) (once, about 2 GB)"
	@$(PYTHON) -m venv $(VENV) || { echo "$(PYTHON) has no venv module; on Debian or Ubuntu: apt install python3-venv"; exit 2; }
	@$(PY) -m pip install --quiet --disable-pip-version-check -r requirements.txt
	@touch $@

$(VENV)/installed-tests: $(VENV)/installed tests/requirements.txt
	@$(PY) -m pip install --quiet --disable-pip-version-check -r tests/requirements.txt
	@touch $@

test: $(VENV)/installed-tests
	$(VENV)/bin/ruff check .
	$(PY) -m pytest -q --durations=10

bench: $(VENV)/installed
	$(PY) tests/bench.py

clean:
	rm -rf $(WORK) $(OUT) data/demo
