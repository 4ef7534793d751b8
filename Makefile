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
	$(PY) -m pytest -q --durations=10 -n 2 --dist loadfile --no-loadscope-reorder $(if $(filter test,$@),-m "not slow")

report images: $(VENV)/installed
	@$(PY) -m unet.pipeline $@ --work="$$WORK" --out="$$OUT"

bench: $(VENV)/installed
	$(PY) tests/bench.py $${DATA:+--data "$$DATA"}

clean:
	@test ! -x $(PY) || $(PY) -m unet.pipeline clean

help:
	@sed -n 's/^# \{0,1\}//p' Makefile

$(VENV)/installed: requirements.txt
$(VENV)/installed-tests: tests/requirements.txt $(VENV)/installed
$(VENV)/installed $(VENV)/installed-tests:
	@command -v $(PYTHON) > /dev/null || { echo "There is no $(PYTHON); name another with make PYTHON=python3.12"; exit 2; }
	@$(PYTHON) -m unet.install $@ $<
