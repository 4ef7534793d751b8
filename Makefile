# make            install, then the whole pipeline: your data in data/ -> prediction.tif; without any, a demo
# make test       the quick tests; make test-all runs all
# make report     the last run on one page: settings, scores, pictures, a methods paragraph
# make images     the pictures of README and docs, drawn anew from a run on the demo stack
# make bench      augmentation against the original's way, timed in one run
# make clean      remove what runs in results/ and the demo made, file by file, and nothing of yours
# DATA=folder of three TIFF stacks or of images with masks, WORK=folder for all that a run makes, OUT=the prediction,
# PRESET=network and schedule, AUGMENT=, TILE=, TRAIN= further options of the three scripts, for instance
#   make PRESET=paper TILE="--preset paper --weights border"

PYTHON ?= python3
VENV   ?= .venv
PY     := $(VENV)/bin/python
.PHONY: all test test-all report images bench clean help

all: $(VENV)/installed
	@$(PY) -m unet.pipeline run --data="$$DATA" --work="$$WORK" --out="$$OUT" --preset="$$PRESET" \
	  --augment="$$AUGMENT" --tile="$$TILE" --train="$$TRAIN"

test test-all: $(VENV)/installed-tests
	$(PY) -m ruff check .
	$(PY) -m pytest -q --durations=10 $(if $(filter test,$@),-m "not slow")

report: $(VENV)/installed
	@$(PY) -m unet.pipeline report --work="$$WORK" --out="$$OUT"

images: $(VENV)/installed
	test -f results/demo/metrics.json || $(PY) -m unet.pipeline run --data data/demo
	$(PY) -m unet.report.figures

bench: $(VENV)/installed
	$(PY) tests/bench.py $${DATA:+--data "$$DATA"}

clean:
	@test ! -x $(PY) || $(PY) -m unet.pipeline clean

help:
	@sed -n 's/^# \{0,1\}//p' Makefile

$(VENV)/installed: requirements.txt
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13))' || \
	  { echo "TensorFlow needs Python 3.10 to 3.13; name one with make PYTHON=python3.12"; exit 2; }
	@echo "Installing into $(VENV), once, about 2 GB"
	@$(PYTHON) -m venv "$(VENV)"
	$(PY) -m pip install --disable-pip-version-check -r requirements.txt
	@touch $@

$(VENV)/installed-tests: $(VENV)/installed tests/requirements.txt
	$(PY) -m pip install --disable-pip-version-check -r tests/requirements.txt
	@touch $@
