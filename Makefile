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
.PHONY: run test test-all report images bench clean help

run report images: $(VENV)/installed
	@$(VENV)/bin/python -m unet.pipeline $@ --data="$$DATA" --work="$$WORK" --out="$$OUT" --preset="$$PRESET" \
	  --augment="$$AUGMENT" --tile="$$TILE" --train="$$TRAIN"

test test-all: $(VENV)/installed-tests
	$(VENV)/bin/python -m ruff check .
	$(VENV)/bin/python -m pytest -q --durations=10 -n 2 --dist loadfile --no-loadscope-reorder $(if $(filter test,$@),-m "not slow")

bench: $(VENV)/installed
	$(VENV)/bin/python tests/bench.py $${DATA:+--data "$$DATA"}

clean:
	@test ! -x $(VENV)/bin/python || $(VENV)/bin/python -m unet.pipeline clean

help:
	@sed -n 's/^# \{0,1\}//p' Makefile

$(VENV)/installed: requirements.txt
$(VENV)/installed-tests: tests/requirements.txt $(VENV)/installed
$(VENV)/installed $(VENV)/installed-tests:
	@command -v $(PYTHON) > /dev/null || { echo "There is no $(PYTHON); name another with make PYTHON=python3.12"; exit 2; }
	@$(PYTHON) -m unet.system.install $@ $<
