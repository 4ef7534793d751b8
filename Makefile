# make               install, then the whole pipeline: data -> prediction.tif
# make test          install, then all tests
# make report        the last run on one page, results/report.html: settings, scores, pictures, a methods paragraph
# make images        the README's pictures, drawn anew from a run on the demo stack in results/demo
# make bench         augmentation against the original's way, timed in one run
# DATA=folder of the three TIFF stacks, WORK=folder for all that a run makes, OUT=the predicted stack; or
# DATA=folder of nuclei images (<id>/images/<id>.png, <id>/masks/*.png), OUT=folder of the predicted images
# PRESET=network and schedule, AUGMENT=, TILE=, TRAIN= further options of the three scripts, for instance
#   make PRESET=paper TILE="--preset paper --weights border"

PYTHON  ?= python3
VENV    ?= .venv
PY      := $(VENV)/bin/python
STACKS  := data/train-volume.tif data/train-labels.tif data/test-volume.tif
DATA    ?= $(if $(filter 3,$(words $(wildcard $(STACKS)))),data,data/demo)
WORK    ?= results
OUT     ?= prediction$(if $(NUCLEI),,.tif)
AUGMENT ?=
TILE    ?=
TRAIN   ?=
# the demo is for a first look: five minutes
PRESET  ?= $(if $(DEMO),fast,auto)

NUCLEI := $(wildcard $(subst $() ,\ ,$(DATA))/*/masks)
DEMO := $(filter data/demo,$(subst $() ,-,$(DATA)))
WHAT := $(DATA), $(if $(DEMO),the demo stack (synthetic; put your three TIFFs into data/ for your own),your $(if $(NUCLEI),nuclei images,stacks))

.PHONY: all test report images bench clean

all: $(VENV)/installed
	$(if $(DEMO),@test -f data/demo/made || { $(PY) datasets.py demo --data data/demo && touch data/demo/made; })
	$(PY) augmentation.py --data "$(DATA)" --work "$(WORK)" $(AUGMENT)
	$(PY) preprocessing.py --work "$(WORK)" $(TILE)
	$(PY) train.py --work "$(WORK)" --out "$(OUT)" --preset $(PRESET) $(TRAIN)
	@echo "== Done with $(WHAT)"

ifneq ($(filter all,$(or $(MAKECMDGOALS),all)),)
$(info == Data: $(WHAT))
endif

$(VENV)/installed: requirements.txt
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13))' || \
	  { echo "TensorFlow needs Python 3.10 to 3.13; name one with make PYTHON=python3.12"; exit 2; }
	@echo "Installing into $(VENV), once, about 2 GB"
	@$(PYTHON) -m venv "$(VENV)" || \
	  { echo "$(PYTHON) cannot make virtual environments; on Debian or Ubuntu: apt install python3-venv"; exit 2; }
	@$(PY) -m pip install --quiet --disable-pip-version-check -r requirements.txt
	@touch $@

$(VENV)/installed-tests: $(VENV)/installed tests/requirements.txt
	@$(PY) -m pip install --quiet --disable-pip-version-check -r tests/requirements.txt
	@touch $@

test: $(VENV)/installed-tests
	$(VENV)/bin/ruff check .
	$(PY) -m pytest -q --durations=10

report: $(VENV)/installed
	$(PY) report.py --work "$(WORK)" $(if $(filter file,$(origin OUT)),,--out "$(OUT)")

images: $(VENV)/installed
	test -f results/demo/metrics.json || \
	  $(MAKE) all DATA=data/demo WORK=results/demo OUT=results/demo/prediction.tif PRESET=fast
	$(PY) -m unet.report.figures --work results/demo --out results/demo/prediction.tif --images images

bench: $(VENV)/installed
	$(PY) tests/bench.py $(if $(DEMO),,--data "$(DATA)")

clean:
	rm -rf "$(WORK)" "$(OUT)" data/demo
