"""A dead run, caught while it trains: the loss no number, the output the same everywhere, or no better than that."""

from __future__ import annotations

import os

os.environ.setdefault("KERAS_BACKEND", "tensorflow")  # whatever else the user's Keras is set to

import keras
import numpy as np

from unet.training.feed import Feed
from utils import NotLearning

LEAST = 50  # steps before a run is judged: shorter ones are judged when they are at their end, by `separates`
WINDOW = 50  # steps at most over which the loss is averaged
NEAR = 0.05  # share of the labels' entropy: the loss has to be less by so much; good runs of the presets are by 0.2
FALLS = 0.01, 0.03  # share of the loss on the same tiles that goes within the window where a run is on its way: far
#                     above the entropy, and near it, where steps go to and fro
FLAT = 1e-3  # standard deviation of an output that is the same everywhere
RARE = 0.05  # nats: with less entropy one class is so rare that the network may say the other one for long
PROBED = 8  # tiles
NO_NUMBER = ("the loss is not a number: the learning rate is too high (try a tenth of it with --lr), or a very rare "
             "class weighs too much (preprocessing.py --weights none)")
CAUSES = ("Likely causes: a rate that is too high, or far too low (--lr); labels of other images, inverted in some of "
          "them (polarity), or of one value; images of one grey level, or with the wrong mean and deviation "
          "(normalisation). 'python datasets.py check DIR' looks for all but the first")


class Alarm(keras.callbacks.Callback):
    """Raises NotLearning at the first step without a loss, and after each tenth of the schedule for a dead run.

    An output that is the same everywhere, whatever the image, has at best the entropy of the labels' shares as its
    loss, weighted as the loss is. A run whose loss is not below that of the very labels that it was computed from, and
    does not fall on a few tiles that stay the same, has learnt nothing.

    Parameters
    ----------
    feed : what the network trains on
    first, total : steps that were taken before, and of the whole schedule
    classes : of the network's output
    """

    def __init__(self, feed: Feed, first: int, total: int, classes: int = 1):
        super().__init__()
        self.feed, self.step, self.total, self.classes = feed, first, total, max(classes, 2)
        self.every = max(total // 10, LEAST)
        self.window = min(self.every // 2, WINDOW)
        self.losses: list[float] = []
        self.sum, self.before = 0.0, None  # of the epoch's losses, and the loss on a few tiles when the window began

    def on_train_batch_end(self, batch, logs=None) -> None:
        total = logs["loss"] * (batch + 1)  # Keras gives the mean of the epoch so far
        loss, self.sum = total - (self.sum if batch else 0.0), total
        self.step += 1
        if not np.isfinite(loss):
            raise NotLearning(f"step {self.step}: {NO_NUMBER}")
        self.losses = [*self.losses, loss][-self.window:]
        if self.step % self.every == self.every - self.window:
            self.before = self.probe()[0]
        elif self.step % self.every == 0 and self.before is not None and self.step < self.total:
            self.judge()

    def judge(self) -> None:
        """Raise NotLearning where the last steps' losses are a dead run's."""
        steps = range(self.step - len(self.losses), self.step)
        shares = np.mean([self.feed.shares(step, self.classes) for step in steps], axis=0)
        if np.count_nonzero(shares) < 2 and self.feed.of_one_value():
            raise NotLearning(f"stopped after {self.step} steps: the labels to train on have one value everywhere, so "
                              "there is nothing to learn. Label what is missing; 'python datasets.py check DIR' shows "
                              "what there is")
        least, loss = entropy(shares), float(np.mean(self.losses))
        if least < RARE * shares.sum() or loss < (1 - NEAR) * least:
            return
        after, spread = self.probe()
        falls = 1 - after / self.before
        if spread < FLAT or falls < FALLS[loss < (1 + NEAR) * least]:
            what = "the network says the same everywhere" if spread < FLAT else f"the loss is {loss:.3g}, hardly falls"
            raise NotLearning(f"stopped after {self.step} steps: {what}, and knowing nothing but how many pixels each "
                              f"class has would give a loss of {least:.3g}. {CAUSES}")

    def probe(self) -> tuple[float, float]:
        """The loss on a few tiles as they are, and how much the output varies within one of them, where it is most."""
        losses, spreads = [], []
        for parts in zip(*self.feed.unchanged(PROBED), strict=True):
            image, label, *weights = (part[np.newaxis] for part in parts)
            output = self.model(image, training=False)
            losses.append(float(self.model.compute_loss(image, label, output, *weights, training=False)))
            spreads.append(keras.ops.convert_to_numpy(output).std(axis=(1, 2)).max())
        return float(np.mean(losses)), float(max(spreads))


def entropy(shares: np.ndarray) -> float:
    """Least mean cross-entropy, nats, that one and the same output everywhere has; `shares` (K,) as `Feed.shares`."""
    present = shares[shares > 0]
    return float(-(present * np.log(present / present.sum())).sum())
