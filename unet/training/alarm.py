"""A dead run, caught while it trains: the loss no number, the output the same everywhere, or telling nothing of labels.
"""

from __future__ import annotations

from functools import cached_property

import keras
import numpy as np
from scipy.optimize import minimize

from unet.training.feed import Feed
from utils import NotLearning

LEAST = 30  # steps before a run is judged: after 20 some seeds of good ones tell next to nothing yet. Runs of fewer
#             steps are judged when they are at their end, by `separates`
WINDOW = 50  # steps at most over which the loss is averaged
NEAR = 0.05  # share of the labels' entropy: the loss has to be less by so much; good runs of the presets are by 0.2
TOLD = 0.05  # share of the labels' entropy: an output that tells less of them, see `told`, tells nothing. In the first
#              tenth 39 good runs on slices and nuclei told .17 and more, nuclei with every other label inverted .03
MORE = 0.01  # share of the labels' entropy: an output that tells more of them than before by so much is on its way
FALLS = 0.01, 0.03  # share of the loss on the same tiles that goes within the window where a run is on its way: far
#                     above the entropy, and near it, where steps go to and fro
FLAT = 1e-3  # standard deviation of an output that is the same everywhere
STILL = 1e-4  # share of the loss on some tiles: one that changes less within the window does not change
RARE = 0.05  # nats: with less entropy one class is so rare that the network may say the other one for long
PROBED = 8, 64, 500_000  # tiles: at least, at most, and as many as have so many pixels
LOOKED_AT = 64  # pixels of a row, and rows of a tile, from which `told` is found
NO_NUMBER = ("the loss is not a number: the learning rate is too high (try a tenth of it with --lr), or a very rare "
             "class weighs too much (preprocessing.py --weights none)")
CAUSES = ("Likely causes: a rate that is too high, or far too low (--lr); labels of other images, inverted in some of "
          "them (polarity), or of one value; images of one grey level, or with the wrong mean and deviation "
          "(normalisation). 'python datasets.py check DIR' looks for all but the first")


class Alarm(keras.callbacks.Callback):
    """Raises NotLearning at the first step without a loss, and after each tenth of the schedule for a dead run.

    An output that is the same everywhere, whatever the image, has at best the entropy of the labels' shares as its
    loss, weighted as the loss is. A run whose loss is not below that of the very labels that it was computed from is
    on its way if on some tiles its output tells something of the labels, and tells more of them, or has less loss,
    than when the steps began that are judged. On its way to the entropy and no further the loss of a dead run falls,
    too, but its output tells nothing. In the first tenth a run whose loss does not change at all is dead, too.

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
        self.sum = 0.0  # of the epoch's losses
        self.before: tuple[float, float] | None = None  # loss on some tiles, and what was told, as the window began

    def on_train_batch_end(self, batch, logs=None) -> None:
        total = logs["loss"] * (batch + 1)  # Keras gives the mean of the epoch so far
        # never below 0: behind a loss of millions differences of float32 are noise
        loss, self.sum = max(total - (self.sum if batch else 0.0), 0.0), total
        self.step += 1
        if not np.isfinite(total):
            raise NotLearning(f"step {self.step}: {NO_NUMBER}")
        self.losses = [*self.losses, loss][-self.window:]
        if self.step % self.every == self.every - self.window:
            # probing takes as long as some steps do: not where the loss alone says that the run is on its way
            sure = self.step > self.every and self.standing()[0]
            self.before = None if sure else self.probe()[:2]
        elif self.step % self.every == 0 and self.step < self.total:
            self.judge()

    def standing(self) -> tuple[bool, float, float, np.ndarray]:
        """Whether the last steps' mean loss is a network's that learns; it, the entropy, and the shares of classes."""
        steps = range(self.step - len(self.losses), self.step)
        shares = np.mean([self.feed.shares(step, self.classes) for step in steps], axis=0)
        least, loss = entropy(shares), float(np.mean(self.losses))
        return least < RARE * shares.sum() or loss < (1 - NEAR) * least, loss, least, shares

    def judge(self) -> None:
        """Raise NotLearning where the last steps' losses are a dead run's."""
        learns, loss, least, shares = self.standing()
        if np.count_nonzero(shares) < 2 and self.feed.of_one_value():
            raise NotLearning(f"stopped after {self.step} steps: the labels to train on have one value everywhere, so "
                              "there is nothing to learn. Label what is missing; 'python datasets.py check DIR' shows "
                              "what there is")
        first = self.step == self.every
        if (learns and not first) or self.before is None:  # it was surely on its way, or went on in the window
            return
        now = self.probe()
        what = "" if learns else self.dead(now, near=loss < (1 + NEAR) * least)
        # weights drawn by chance may be better than knowing nothing: do they change at all?
        if not what and first and abs(now[0] / self.before[0] - 1) < STILL:
            what = "the network does not change"
        if what:
            raise NotLearning(f"stopped after {self.step} steps: {what}; the loss is {loss:.3g}, and knowing nothing "
                              f"but how many pixels each class has would give one of {least:.3g}. {CAUSES}")

    def dead(self, now: tuple[float, float, float], near: bool) -> str:
        """What of a `probe` shows that nothing was learnt, '' where nothing does; `near` the entropy or far above."""
        before, told_before = self.before
        after, told_now, spread = now
        if spread < FLAT:
            return "the network says the same everywhere"
        if all(np.ptp(image) == 0 for image in self.probed[0]):
            return "the images are of one grey level"
        if told_now - told_before < MORE and 1 - after / before < FALLS[near]:
            return "the loss hardly falls"
        return "what the network says tells nothing of the labels" if told_now < TOLD else ""

    @cached_property
    def probed(self) -> tuple[np.ndarray, ...]:
        """Some tiles, from all over, as they are: images, labels and any weights."""
        least, most, pixels = PROBED
        side = self.feed.arrays[0].shape[1]
        return self.feed.unchanged(min(max(pixels // side**2, least), most), apart=True)

    def probe(self) -> tuple[float, float, float]:
        """The loss on some tiles, what is told of their labels, and how much the output varies within one at most."""
        losses, outputs = [], []
        for first in range(0, len(self.probed[0]), self.feed.batch):
            image, label, *weights = (array[first:first + self.feed.batch] for array in self.probed)
            output = keras.tree.flatten(self.model(image, training=False))[0]  # affinities may be the second
            loss = self.model.compute_loss(image, label, output, *weights, training=False)
            losses += [float(loss)] * len(image)
            outputs.append(keras.ops.convert_to_numpy(output))
        output = np.concatenate(outputs)
        few = np.s_[:, ::max(1, output.shape[1] // LOOKED_AT), ::max(1, output.shape[2] // LOOKED_AT)]
        return (float(np.mean(losses)), told(*(array[few] for array in (output, *self.probed[1:]))),
                float(output.std(axis=(1, 2)).max()))


def told(output: np.ndarray, labels: np.ndarray, weights: np.ndarray | None = None) -> float:
    """What share of the labels' entropy an output would take off it at best, were it only calibrated: 0 to 1.

    So a network that is sure of what is wrong in half of all places tells nothing, and one that finds all cells at
    probabilities of .1 against .01 all but everything. Calibrated are the logits, by one positive factor for all and
    a shift for each class, to the least cross-entropy (Platt 1999; Guo et al. 2017). 1 where labels have one value.

    Parameters
    ----------
    output : probabilities float (..., K), or (..., 1) that of the second of two classes
    labels : (..., 1), from 0
    weights : of the pixels (...), or None
    """
    chances = np.clip(output.reshape(-1, output.shape[-1]).astype(np.float64), 1e-7, 1 - 1e-7)
    logits = np.log(chances if chances.shape[1] > 1 else np.hstack([1 - chances, chances]))
    weights = np.ones(len(logits)) if weights is None else weights.ravel().astype(np.float64)
    weights = weights / weights.sum()
    own = labels.ravel()[:, np.newaxis] == np.arange(logits.shape[1])  # each pixel's class
    shares = weights @ own
    least = entropy(shares)
    if not least:
        return 1.0
    logits -= logits.mean(axis=1, keepdims=True)
    logits -= weights @ logits
    logits /= max(np.sqrt(np.mean(logits**2)), 1e-9)

    def loss(fit: np.ndarray) -> tuple[float, np.ndarray]:
        scores = fit[0] * logits + fit[1:]
        scores -= scores.max(axis=1, keepdims=True)
        scores -= np.log(np.exp(scores).sum(axis=1, keepdims=True))
        slope = weights[:, np.newaxis] * (np.exp(scores) - own)
        return -(weights @ scores[own]), np.concatenate([[(slope * logits).sum()], slope.sum(axis=0)])

    start = np.log(np.maximum(shares, 1e-9))
    best = minimize(loss, [0.0, *start], jac=True, method="L-BFGS-B", bounds=[(0, None), *[(None, None)] * len(shares)])
    return max(0.0, 1 - float(best.fun) / least)


def entropy(shares: np.ndarray) -> float:
    """Least mean cross-entropy, nats, that one and the same output everywhere has; `shares` (K,) as `Feed.shares`."""
    present = shares[shares > 0]
    return float(-(present * np.log(present / present.sum())).sum())
