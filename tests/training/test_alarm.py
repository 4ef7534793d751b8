"""The alarm: ten deliberate breakages, each caught in the first tenth; ten good runs, none stopped; sums by hand."""

import json
from dataclasses import replace

import numpy as np
import pytest
from training.tiny import write_patches

import train
from model import Network, Recipe
from unet.training.alarm import MIN_STEPS, Alarm, explained_share, label_entropy
from unet.training.feed import Feed
from unet.training.keeper import Keeper
from utils import NotLearning

RECIPE = Recipe(Network(8, 1, dropout=(0, 0.2)), epochs=10, steps=50, batch=4, lr=0.01, optimizer="muon",
                intensity=0.2, warmup=0.1)


def change(work, name, function):
    """Replace an array of the tiles by what a function makes of it."""
    path = work / "patches" / f"train-{name}.npy"
    np.save(path, function(np.load(path)))


def change_normalisation(work, **levels):
    path = work / "patches" / "geometry.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"normalisation": levels}))


def kill_the_first_layer(monkeypatch):
    """All its activations are 0, whatever the image, and no gradient goes through."""
    build = train.build

    def dead(*arguments):
        network = build(*arguments)
        network.get_layer("down0_conv1").bias.assign([-1e6] * 8)
        return network

    monkeypatch.setattr(train, "build", dead)


random = np.random.default_rng(1)
BREAKAGES = {  # what is done to the folder, the changes of the recipe, and what is said
    "a rate of nothing": (None, {"lr": 1e-9}, "hardly falls"),
    "a rate without measure": (None, {"lr": 300.0, "optimizer": "adam"}, r"rate that is too high|not a number"),
    "a weight that is no number": (lambda work: change(work, "weights", lambda all_: all_ * np.inf), {},
                                   "not a number"),
    "labels of noise": (lambda work: change(work, "labels", lambda all_: random.integers(0, 2, all_.shape, np.uint8)),
                        {}, "labels of other images"),
    "labels of other images": (lambda work: change(work, "labels", lambda all_: np.rot90(all_[::-1], 1, (1, 2))), {},
                               "labels of other images"),
    "labels inverted in every other one": (
        lambda work: change(work, "labels", lambda all_: np.where(np.arange(len(all_))[:, None, None] % 2, all_,
                                                                  1 - all_)), {}, "inverted in some of them"),
    "labels of one value": (lambda work: change(work, "labels", np.ones_like), {}, "one value everywhere"),
    "images of one grey level": (lambda work: change(work, "images", np.zeros_like), {"intensity": 0.0},
                                 "images of one grey level"),
    "a deviation of a million": (lambda work: change_normalisation(work, mean=128.0, sd=1e9), {"intensity": 0.0},
                                 "normalisation"),
    "dead activations": ("kill", {}, "output is the same everywhere"),
}


@pytest.mark.slow
@pytest.mark.parametrize("steps", [30, 50])  # an epoch, of ten
@pytest.mark.parametrize("name", BREAKAGES)
def test_a_breakage_is_caught_in_the_first_tenth(name, steps, tmp_path, monkeypatch):
    spoil, changes, said = BREAKAGES[name]
    work = write_patches(tmp_path, weights=np.float32(1) if "weight" in name else None, count=40)
    for array in ("images", "labels"):  # lines anywhere: near the edges there were none, which padding tells
        change(work, array, lambda all_: np.stack([np.roll(one, 7 * at, 0) for at, one in enumerate(all_)]))
    if spoil == "kill":
        kill_the_first_layer(monkeypatch)
    elif spoil:
        spoil(work)
    taken = []
    original = Alarm.on_train_batch_end
    monkeypatch.setattr(Alarm, "on_train_batch_end",
                        lambda self, batch, logs: (taken.append(batch), original(self, batch, logs)))
    with pytest.raises(NotLearning, match=said):
        train.train(work, replace(RECIPE, steps=steps, **changes))
    assert len(taken) <= steps


def write_classes(folder):
    """Tiles of three classes: lines, what is above of them, what is below."""
    work = write_patches(folder, count=40, classes=3)
    change(work, "labels", lambda all_: np.where(all_ == 0, 0, 1 + (np.cumsum(all_ == 0, axis=1) > 0)).astype(np.uint8))
    change(work, "images", lambda all_: np.where(np.load(work / "patches" / "train-labels.npy") == 2, 220, all_))
    return work


def write_rare(folder):
    """Tiles of which one in forty has a few pixels of background: a share of 1 in 2,000."""
    work = write_patches(folder, count=40)
    change(work, "labels", lambda all_: (np.arange(all_.size).reshape(all_.shape) % 2003 > 0).astype(np.uint8))
    return work


def balanced(folder):
    """Weights with which a class of a fiftieth counts as much as the other."""
    work = write_patches(folder, count=40, weights=np.float32(1))
    change(work, "labels", lambda all_: (np.indices(all_.shape)[1] != 5).astype(np.uint8))
    change(work, "images", lambda all_: np.where(np.indices(all_.shape)[1] != 5, all_, 20))
    labels = np.load(work / "patches" / "train-labels.npy")
    change(work, "weights", lambda _: np.where(labels, 0.5 / labels.mean(), 0.5 / (1 - labels.mean())))
    return work


def tiles(folder):
    return write_patches(folder, count=40)


GOOD = {
    "seed 1": (tiles, {}, 1), "seed 2": (tiles, {}, 2), "seed 3": (tiles, {}, 3),
    "Adam, gently": (tiles, {"optimizer": "adam", "lr": 2e-3}, 0),
    "the paper's SGD, a tile a step": (tiles, {"optimizer": "sgd", "lr": 1e-2, "batch": 1}, 0),
    "as nuclei": (lambda folder: write_patches(folder, count=40, channels=3, weights=np.float32(3)), {
        "optimizer": "adam", "lr": 3e-3, "network": Network(8, 1, activation="elu", dropout=(0.1, 0.1),
                                                            dropout_between=True)}, 0),
    "three classes": (write_classes, {}, 0),
    "half resolution": (tiles, {"network": Network(8, 1, dropout=(0, 0), half=True)}, 0),
    "a rare class": (write_rare, {}, 0),
    "a rare class that weighs as much": (balanced, {}, 0),
}


def stop():
    raise KeyboardInterrupt


@pytest.mark.slow
@pytest.mark.parametrize("steps", [30, 50])
@pytest.mark.parametrize("name", GOOD)
def test_a_good_run_is_not_stopped(name, steps, tmp_path, monkeypatch):
    write, changes, seed = GOOD[name]
    judged, original = [], Alarm.judge
    monkeypatch.setattr(Alarm, "judge", lambda self: (original(self), judged.append(self.step)))
    begin = Keeper.on_epoch_begin
    monkeypatch.setattr(Keeper, "on_epoch_begin",
                        lambda self, epoch, logs=None: stop() if epoch == 2 else begin(self, epoch, logs))
    with pytest.raises(KeyboardInterrupt):
        train.train(write(tmp_path), replace(RECIPE, steps=steps, **changes), seed)
    assert judged == [steps, 2 * steps]


# ------------------------------------------------------------------------------------------------------- by hand


def test_entropy_by_hand():
    assert label_entropy(np.array([0.5, 0.5])) == pytest.approx(np.log(2))
    assert label_entropy(np.array([0.1, 0.9])) == pytest.approx(0.325083, abs=1e-6)
    assert label_entropy(np.array([2.0, 2.0, 0.0])) == pytest.approx(4 * np.log(2))  # weights of 4 on average
    assert label_entropy(np.array([0.0, 1.0])) == 0


def test_shares_are_those_of_a_steps_tiles_and_weights(tmp_path):
    work = write_patches(tmp_path, count=10, weights=np.float32(3))
    feed = Feed(work / "patches", 4, seed=1)
    _, labels, weights = feed[2]
    expected = [(weights * (labels[..., 0] == value)).mean() for value in (0, 1)]
    np.testing.assert_allclose(feed.class_shares(2, 3), [*expected, 0])
    assert not feed.has_one_value()
    change(work, "labels", np.ones_like)
    assert Feed(work / "patches", 4).has_one_value()


def test_explained_share_by_hand():
    labels = np.array([0, 0, 0, 1] * 2)[:, None]
    right, wrong = np.where(labels, 0.10, 0.01), np.where(labels, 0.01, 0.10)
    assert explained_share(right, labels) > 0.99  # however far from 1 it is
    assert explained_share(wrong, labels) < 1e-6  # to take it the other way round is not calibration
    assert explained_share(np.full((8, 1), 0.3), labels) < 1e-6
    assert explained_share(right, np.ones((8, 1))) == 1
    half = np.array([0, 0, 1, 1, 0, 0, 1, 1])[:, None]  # of 4 sure of 0, none is 1; of the other 4 every other one is
    assert explained_share(np.where(half, 0.6, 0.4), labels) == pytest.approx(1 - np.log(2) / 2 / 0.562335, abs=1e-4)
    weights = np.where([0, 0, 1, 1] * 2, 1, 0)  # the others weigh 0
    assert explained_share(np.where(half, 0.6, 0.4), labels, weights) < 1e-6
    three = np.array([0, 1, 2, 2])[:, None]
    chances = np.array([[0.4, 0.3, 0.3], [0.3, 0.4, 0.3], [0.3, 0.3, 0.4], [0.3, 0.3, 0.4]])
    assert explained_share(chances, three) > 0.99
    assert explained_share(chances[::-1], three) < 0.2


class Says:
    """A network that is right by so much where a tile is light, and has this loss: before the judged steps, and after.
    """

    def __init__(self, losses=(9.0, 9.0), right=(0.1, 0.1)):
        self.losses, self.right = list(losses), list(right)

    def __call__(self, image, training):
        return 0.5 + self.right[0] * ((image > 110) - 0.5)

    def compute_loss(self, *_, training):
        return self.losses[0]


@pytest.mark.parametrize(("loss", "losses", "right", "said"), [
    (0.30, (0.60, 0.59), (0.1, 0.1), ""),  # below the entropy: about .38 of lines of 2 in 16
    (0.60, (0.60, 0.60), (0.1, 0.1), "the loss hardly falls"),
    (0.60, (0.60, 0.57), (0.1, 0.1), ""),  # on its way
    (0.30, (0.60, 0.60), (0.1, 0.1), "the network does not change"),
    (0.60, (0.60, 0.599), (-0.1, 0.1), ""),  # it explains more than before
    (0.60, (0.60, 0.57), (0.1, 1e-4), "output is the same everywhere"),
    (0.60, (0.60, 0.30), (0.1, -0.1), "unrelated to the labels"),  # though the loss falls
])
def test_a_verdict_by_hand(tmp_path, loss, losses, right, said):
    alarm = Alarm(Feed(write_patches(tmp_path) / "patches", 4), 0, 10 * MIN_STEPS)
    model = Says(losses, right)
    alarm.set_model(model)
    for step in range(MIN_STEPS):
        if step == MIN_STEPS - 1:
            model.losses, model.right = model.losses[1:], model.right[1:]
            if said:
                with pytest.raises(NotLearning, match=f"stopped after {MIN_STEPS} steps: .*{said}; the loss is "
                                                      f"{loss:g}, .*Likely causes: a rate that is too high"):
                    alarm.on_train_batch_end(step, {"loss": loss})
                return
        alarm.on_train_batch_end(step, {"loss": loss})


@pytest.mark.parametrize("loss", [0.30, 0.60])  # below the entropy, and above
def test_tiles_are_looked_at_once_where_a_run_is_judged(tmp_path, monkeypatch, loss):
    alarm = Alarm(Feed(write_patches(tmp_path) / "patches", 4), 0, 10 * MIN_STEPS)
    alarm.set_model(Says((0.60, 0.57)))
    steps, probe = [], Alarm.probe
    monkeypatch.setattr(Alarm, "probe", lambda self: (steps.append(self.step), probe(self))[1])
    for step in range(MIN_STEPS):
        if step == MIN_STEPS - 1:
            alarm.model.losses = [0.57]
        alarm.on_train_batch_end(step, {"loss": loss})
    assert steps == [MIN_STEPS // 2, MIN_STEPS]


def test_after_the_first_tenth_only_a_run_in_doubt_is_looked_at_and_one_that_dies_is_stopped(tmp_path, monkeypatch):
    alarm = Alarm(Feed(write_patches(tmp_path) / "patches", 4), MIN_STEPS, 10 * MIN_STEPS)
    alarm.set_model(Says((0.60, 0.60)))
    steps, probe = [], Alarm.probe
    monkeypatch.setattr(Alarm, "probe", lambda self: (steps.append(self.step), probe(self))[1])
    for _ in range(3 * MIN_STEPS):
        alarm.on_train_batch_end(0, {"loss": 0.20})  # the entropy is about .38
    assert (alarm.step, steps) == (4 * MIN_STEPS, [])
    with pytest.raises(NotLearning, match=f"stopped after {5 * MIN_STEPS} steps: the loss hardly falls"):
        for _ in range(MIN_STEPS):
            alarm.on_train_batch_end(0, {"loss": 0.60})
    assert steps == [4 * MIN_STEPS + MIN_STEPS // 2, 5 * MIN_STEPS]


def test_the_mean_of_an_epoch_is_taken_apart(tmp_path):
    alarm = Alarm(Feed(write_patches(tmp_path) / "patches", 4), 0, 200)
    for batch, mean in ((0, 4.0), (1, 3.0), (2, 3.0), (0, 5.0)):  # of losses 4, 2, 3 and, in the next epoch, 5
        alarm.on_train_batch_end(batch, {"loss": mean})
    assert alarm.losses == [4, 2, 3, 5]


def test_short_runs_and_runs_that_go_on_in_a_window_are_left_alone(tmp_path):
    feed = Feed(write_patches(tmp_path) / "patches", 4)
    for first, total in ((0, MIN_STEPS), (MIN_STEPS - 3, 200), (0, MIN_STEPS - 1)):
        alarm = Alarm(feed, first, total)
        alarm.set_model(Says())
        for batch in range(min(total, MIN_STEPS) - first):
            alarm.on_train_batch_end(batch, {"loss": 9.0})


def test_a_resumed_run_is_judged_where_its_schedule_is(tmp_path):
    work = write_patches(tmp_path)
    alarm = Alarm(Feed(work / "patches", 4), 60, 200)
    alarm.set_model(Says())
    with pytest.raises(NotLearning, match="stopped after 90 steps"):
        for batch in range(60):
            alarm.on_train_batch_end(batch, {"loss": 9.0})
