"""Make a run as training leaves it, with a stand-in for its network, and run the final step on it."""

import json
from dataclasses import asdict, replace

import numpy as np

import predict
from model import Network
from unet.engines.predictor import Predictor
from unet.inputs.layouts import layout_of

SAME = Network(4, 2, dropout=(0, 0, 0))


class Bright:
    """A stand-in for a network: bright pixels are cell, or all have the probability `says`.

    It counts its calls, keeps the tiles that it got, and stops at the call `stop`.
    """

    def __init__(self, stop=None, says=None):
        self.calls, self.stop, self.says, self.tiles = 0, stop, says, []

    def __call__(self, tiles):
        self.calls += 1
        if self.calls == self.stop:
            raise KeyboardInterrupt
        self.tiles += list(tiles)
        mean = tiles.mean(axis=-1, keepdims=True, dtype=np.float32)
        return 1 / (1 + np.exp((118 - mean) / 12)) if self.says is None else np.full(mean.shape, self.says)


def config_of(task, split, **more):
    """Return a run's config.json for a task and a split, with further keys."""
    return {"task": task.settings(), "network": asdict(SAME), "channels": task.channels,
            "normalisation": task.normalisation, "recipe": {"flips": 1, "look_back": 3, "walls": True}, "split": split,
            **more}


def trained(folder, config):
    """Write what training leaves in `folder`; return the run's folder."""
    work = folder / "results"
    work.mkdir()
    (work / "model.keras").write_bytes(b"weights")
    (work / "config.json").write_text(json.dumps({**config, "data": str(folder / "data")}))
    return work


def final(work, model=None, **changes):
    """Run what remains of the final step with a new `Bright`; return whether anything did, and the network's calls."""
    config = json.loads((work / "config.json").read_text())
    layout, model = layout_of(config["data"]), model or Bright()
    task = predict.task_of(config)
    outputs = replace(task.outputs(work.parent / task.default_out), **changes)
    step = predict.FinalStep(work, Predictor(model, SAME, task), config, layout, layout.to_predict(), outputs)
    return step.run(), model.calls
