"""Read a trained network from disk: its config.json, without Keras, and its weights."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING
from zipfile import BadZipFile

import numpy as np

from unet.network import Network
from unet.tasks import task_of
from utils import UserError, read_json

if TYPE_CHECKING:
    import keras

MOST_FILTERS = 2**16  # of the deepest level; more fit into no memory
TRAIN_FIRST = "run 'python train.py' first, or name another model"


def read_config(model: Path) -> dict:
    """Return the config.json that belongs to a model; raises UserError if either is missing, broken or too old."""
    if model.is_dir():
        raise UserError(f"{model} is a folder; name the model in it, for instance {model / 'model.keras'}")
    if not model.is_file():
        raise UserError(f"{model} not found; {TRAIN_FIRST}")
    way_out = f"it lies beside {model.name} and belongs to it; {TRAIN_FIRST}"
    config = read_json(model.with_name("config.json"), way_out,
                       ("task", "network", "channels", "normalisation", "recipe"))
    try:
        task = task_of(config)
        network, learnt = Network(**config["network"]), config.get("learnt", {})
        if network.filters * 2**network.depth > MOST_FILTERS:
            raise ValueError(f"its network has {network.filters} filters")
        thresholds = [learnt[name] for name in ("threshold", "plain_threshold") if name in learnt]
        width = (learnt.get("walls") or {"width": 1})["width"]
        if not (all(0 <= threshold <= 1 for threshold in thresholds) and 0 < width < np.inf):
            raise ValueError(f"its thresholds are {thresholds}, its walls {width} pixels wide")
        flips = config["recipe"].get("flips")
        if flips not in range(1, 9):
            raise ValueError(f"its recipe has {flips} flips, expected 1 to 8")
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise UserError(f"{model.with_name('config.json')} is not what this project writes ({error}); {way_out}"
                        ) from None
    if config["normalisation"] != task.normalisation:
        raise UserError(f"{model} was trained on images normalised to {config['normalisation']}, but this version "
                        f"normalises them to {task.normalisation}; predict with the version that trained it, or train "
                        "again")
    return config


def load_model(path: Path) -> tuple[keras.Model, dict]:
    """Return the trained network and its config.json; raises UserError if either is missing or broken.

    The network is built again for this machine's arithmetic, then gets the weights: a model trained in bfloat16
    predicts anywhere.
    """
    from unet.training.encoders import build  # not above, as it imports Keras

    config = read_config(path)
    try:
        model = build(Network(**config["network"]), config["channels"], config["normalisation"])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about skipped weights; missing ones raise an error
            model.load_weights(path)
        if not all(np.isfinite(array).all() for array in model.get_weights()):
            raise ValueError("its weights are not numbers")
        model.jit_compile = False  # on a GPU XLA would compile it again for each size of tile
    except (OSError, ValueError, KeyError, TypeError, BadZipFile) as error:
        raise UserError(f"{path} cannot be read as a model ({str(error).splitlines()[0][:90]}); "
                        f"{TRAIN_FIRST}") from None
    return model, config
