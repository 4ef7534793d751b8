"""Stop a dead run while it trains: its loss is not a number, or its output is constant or unrelated to the labels."""

from __future__ import annotations

from functools import cached_property

import keras
import numpy as np
from scipy.optimize import minimize

from unet.training.feed import Feed
from utils import NotLearning

# Steps before a run is judged: after 20 the output of some good seeds is still nearly unrelated to the labels. Runs of
# fewer steps are judged when they have ended, by `separates`
MIN_STEPS = 30
WINDOW = 50  # steps at most over which the loss is averaged
BELOW = 0.05  # share of the labels' entropy by which the loss has to be below it; good runs of the presets are by 0.2
# Share of the labels' entropy: an output that explains less, see `explained_share`, is unrelated to them. In the first
# tenth 39 good runs on slices and nuclei explained .17 and more, nuclei with every second label inverted .03
MIN_EXPLAINED = 0.05
MIN_GAIN = 0.01  # share of the labels' entropy: an output that explains so much more than before makes progress
# Share of the loss on the same tiles by which it falls within the window if a run makes progress: far above the
# entropy, and near it, where steps go to and fro
MIN_FALLS = 0.01, 0.03
FLAT = 1e-3  # standard deviation below which an output is the same everywhere
STILL = 1e-4  # share of the loss on the probe: a loss that changes less within the window does not change
RARE = 0.05  # nats: below this entropy one class is so rare that the network may predict the other one for long
PROBE_TILES = 8, 64, 500_000  # least and most tiles; between them, as many as make up this number of pixels
PROBE_PIXELS = 64  # of a row, and rows of a tile, from which `explained_share` is computed
NO_NUMBER = ("the loss is not a number: the learning rate is too high (try a tenth of it with --lr), or a very rare "
             "class weighs too much (preprocessing.py --weights none)")
CAUSES = ("Likely causes: a rate that is too high, or far too low (--lr); labels of other images, inverted in some of "
          "them (polarity), or of one value; images of one grey level, or with the wrong mean and deviation "
          "(normalisation). 'python datasets.py check DIR' looks for all but the first")


class Alarm(keras.callbacks.Callback):
    """A callback that raises NotLearning if the loss is not a number, or if the network does not learn.

    A constant output, the same everywhere in every image, has a loss that is at best the entropy of the classes'
    shares, weighted as the loss is. A run learns if its loss is below this entropy of the very labels from which the
    loss was computed. Otherwise it has to make progress on the probe, some tiles: its output has to be related to their
    labels, and since the beginning of the judged steps it has to explain more of them or to have less loss. The loss of
    a dead run falls, too, on its way to the entropy and no further, but its output stays unrelated to the labels. In
    the first tenth a run whose loss does not change at all is dead, too. The run is judged after each tenth of the
    schedule except the last.

    Parameters
    ----------
    feed : what the network trains on
    first, total : steps that were taken before, and steps of the whole schedule
    classes : number of classes of the network's output
    """

    def __init__(self, feed: Feed, first: int, total: int, classes: int = 1):
        super().__init__()
        self.feed, self.step, self.total, self.classes = feed, first, total, max(classes, 2)
        self.every = max(total // 10, MIN_STEPS)
        self.window = min(self.every // 2, WINDOW)
        self.losses: list[float] = []
        self.sum = 0.0  # of the epoch's losses
        self.before: tuple[float, float] | None = None  # loss on the probe and share explained as the window began

    def on_train_batch_end(self, batch, logs=None) -> None:
        total = logs["loss"] * (batch + 1)  # Keras gives the mean of the epoch so far
        # never below 0: after a loss of millions differences of float32 are noise
        loss, self.sum = max(total - (self.sum if batch else 0.0), 0.0), total
        self.step += 1
        if not np.isfinite(total):
            raise NotLearning(f"step {self.step}: {NO_NUMBER}")
        self.losses = [*self.losses, loss][-self.window:]
        if self.step % self.every == self.every - self.window:
            # a probe takes as long as some steps: none if the loss is already low enough
            learns = self.step > self.every and self.assess()[0]
            self.before = None if learns else self.probe()[:2]
        elif self.step % self.every == 0 and self.step < self.total:
            self.judge()

    def assess(self) -> tuple[bool, float, float, np.ndarray]:
        """Return whether the last steps' mean loss shows learning, that loss, the entropy, and the classes' shares."""
        steps = range(self.step - len(self.losses), self.step)
        shares = np.mean([self.feed.class_shares(step, self.classes) for step in steps], axis=0)
        least, loss = label_entropy(shares), float(np.mean(self.losses))
        return least < RARE * shares.sum() or loss < (1 - BELOW) * least, loss, least, shares

    def judge(self) -> None:
        """Raise NotLearning if the last steps' losses are those of a dead run."""
        learns, loss, least, shares = self.assess()
        if np.count_nonzero(shares) < 2 and self.feed.has_one_value():
            raise NotLearning(f"stopped after {self.step} steps: the labels to train on have one value everywhere, so "
                              "there is nothing to learn. Label what is missing; 'python datasets.py check DIR' shows "
                              "what there is")
        first = self.step == self.every
        if (learns and not first) or self.before is None:  # it learnt before, or was resumed within the window
            return
        now = self.probe()
        symptom = "" if learns else self.symptom(now, near=loss < (1 + BELOW) * least)
        # random weights may by chance be better than a constant output: do they change at all?
        if not symptom and first and abs(now[0] / self.before[0] - 1) < STILL:
            symptom = "the network does not change"
        if symptom:
            raise NotLearning(f"stopped after {self.step} steps: {symptom}; the loss is {loss:.3g}, and an output that "
                              f"is the same everywhere would have {least:.3g} at best. {CAUSES}")

    def symptom(self, now: tuple[float, float, float], near: bool) -> str:
        """Name what shows in a `probe` that nothing was learnt, '' if nothing does; `near` the entropy or far above."""
        loss_before, explained_before = self.before
        loss_now, explained_now, spread = now
        if spread < FLAT:
            return "the network's output is the same everywhere"
        if all(np.ptp(image) == 0 for image in self.probe_tiles[0]):
            return "the images are of one grey level"
        if explained_now - explained_before < MIN_GAIN and 1 - loss_now / loss_before < MIN_FALLS[near]:
            return "the loss hardly falls"
        return "the network's output is unrelated to the labels" if explained_now < MIN_EXPLAINED else ""

    @cached_property
    def probe_tiles(self) -> tuple[np.ndarray, ...]:
        """Some tiles from all over the data, unchanged: images, labels and any weights."""
        least, most, pixels = PROBE_TILES
        side = self.feed.arrays[0].shape[1]
        return self.feed.plain_tiles(min(max(pixels // side**2, least), most), apart=True)

    def probe(self) -> tuple[float, float, float]:
        """Return loss and `explained_share` on `probe_tiles`, and the largest standard deviation in a tile's output."""
        losses, outputs = [], []
        for first in range(0, len(self.probe_tiles[0]), self.feed.batch):
            image, label, *weights = (array[first:first + self.feed.batch] for array in self.probe_tiles)
            output = keras.tree.flatten(self.model(image, training=False))[0]  # affinities may be the second
            loss = self.model.compute_loss(image, label, output, *weights, training=False)
            losses += [float(loss)] * len(image)
            outputs.append(keras.ops.convert_to_numpy(output))
        output = np.concatenate(outputs)
        subset = np.s_[:, ::max(1, output.shape[1] // PROBE_PIXELS), ::max(1, output.shape[2] // PROBE_PIXELS)]
        return (float(np.mean(losses)), explained_share(*(array[subset] for array in (output, *self.probe_tiles[1:]))),
                float(output.std(axis=(1, 2)).max()))


def explained_share(output: np.ndarray, labels: np.ndarray, weights: np.ndarray | None = None) -> float:
    """Return the share of the labels' entropy, 0 to 1, that an output explains after the best calibration.

    So a network that is confidently wrong in half of all places explains nothing, and one that finds all cells, at
    probabilities of .1 against .01, nearly everything. The logits are calibrated by one positive factor for all and a
    shift for each class, which give the least cross-entropy (Platt 1999; Guo et al. 2017). If labels have one value,
    the share is 1.

    Parameters
    ----------
    output : probabilities float (..., K), or (..., 1) for the second of two classes
    labels : (..., 1), from 0
    weights : of the pixels (...), or None
    """
    probabilities = np.clip(output.reshape(-1, output.shape[-1]).astype(np.float64), 1e-7, 1 - 1e-7)
    if probabilities.shape[1] == 1:
        probabilities = np.hstack([1 - probabilities, probabilities])
    logits = np.log(probabilities)
    weights = np.ones(len(logits)) if weights is None else weights.ravel().astype(np.float64)
    weights = weights / weights.sum()
    one_hot = labels.ravel()[:, np.newaxis] == np.arange(logits.shape[1])
    shares = weights @ one_hot
    least = label_entropy(shares)
    if not least:
        return 1.0
    logits -= logits.mean(axis=1, keepdims=True)
    logits -= weights @ logits
    logits /= max(np.sqrt(np.mean(logits**2)), 1e-9)

    def loss(calibration: np.ndarray) -> tuple[float, np.ndarray]:
        scores = calibration[0] * logits + calibration[1:]
        scores -= scores.max(axis=1, keepdims=True)
        scores -= np.log(np.exp(scores).sum(axis=1, keepdims=True))
        slope = weights[:, np.newaxis] * (np.exp(scores) - one_hot)
        return -(weights @ scores[one_hot]), np.concatenate([[(slope * logits).sum()], slope.sum(axis=0)])

    start = np.log(np.maximum(shares, 1e-9))
    best = minimize(loss, [0.0, *start], jac=True, method="L-BFGS-B", bounds=[(0, None), *[(None, None)] * len(shares)])
    return max(0.0, 1 - float(best.fun) / least)


def label_entropy(shares: np.ndarray) -> float:
    """Return the least mean cross-entropy, nats, of a constant output; `shares` (K,) as `Feed.shares` gives them."""
    present = shares[shares > 0]
    return float(-(present * np.log(present / present.sum())).sum())
