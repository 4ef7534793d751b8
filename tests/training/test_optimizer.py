"""Muon: which kernels it takes, how far it steps, and what is left to Adam."""

import keras
import numpy as np
import pytest

from model import PRESETS, Network, Recipe, build_unet
from unet.training.optimizer import Muon, compile_model, end_layers, orthogonal

FULL = ["down0_conv1", "probability"]  # convolutions whose kernels are Adam's, of a network at full resolution
HALF = ["head_edge", "probability", "stem"]


def adams(network, channels=1):
    """Names of the convolutions whose kernels Muon leaves to Adam."""
    model = build_unet(network, channels)
    compile_model(model, Recipe(network, optimizer="muon"))
    optimizer = model.optimizer
    optimizer.build(model.trainable_variables)
    hidden = {variable.path for variable, is_hidden in zip(model.trainable_variables, optimizer.hidden, strict=True)
              if is_hidden}
    kernels = {variable.path for variable in model.trainable_variables if variable.path.endswith("/kernel")}
    assert hidden <= kernels  # no bias
    return sorted(path.split("/")[-2] for path in kernels - hidden)


@pytest.mark.parametrize(("name", "layers"), [("fast", HALF), ("cpu", HALF), ("best", HALF), ("gpu", FULL)])
def test_adam_has_the_first_and_the_last_kernel_of_each_preset(name, layers):
    assert PRESETS[name].optimizer == "muon"
    assert adams(PRESETS[name].network) == layers


def test_the_last_kernel_stays_adams_whatever_its_shape():
    """Nine classes made it a kernel of (1, 1, 8, 9), nine channels the first one of (3, 3, 9, 8)."""
    assert adams(Network(8, 1, dropout=(0, 0), classes=9), channels=9) == FULL
    assert adams(Network(8, 1, dropout=(0, 0), half=True, classes=9), channels=9) == HALF


def test_kernels_of_few_channels_stay_adams():
    assert "down0_conv2" in adams(Network(4, 1, dropout=(0, 0)))
    assert "down0_conv2" not in adams(Network(8, 1, dropout=(0, 0)))


@pytest.mark.parametrize("half", [True, False])
def test_end_layers_take_the_scaled_image_or_give_the_output(half):
    network = Network(8, 2, dropout=(0, 0, 0), half=half)
    model = build_unet(network)
    takers = [node.operation.name for node in model.get_layer("scaling")._outbound_nodes]
    assert sorted(end_layers(network)) == sorted([*takers, model.layers[-1].name])


def test_orthogonal_draws_all_singular_values_towards_one(rng):
    for shape in ((40, 12), (12, 40)):
        matrix = rng.normal(size=shape).astype(np.float32)
        values = np.linalg.svd(keras.ops.convert_to_numpy(orthogonal(matrix)), compute_uv=False)
        assert values.min() > 0.6
        assert values.max() < 1.3


def test_muon_steps_kernels_by_the_learning_rate_and_leaves_biases_to_adam(rng):
    kernel = keras.Variable(rng.normal(size=(3, 3, 8, 8)).astype(np.float32))
    bias = keras.Variable(np.zeros(8, np.float32))
    before = kernel.numpy()
    optimizer = Muon(0.1, share=0.5)
    gradient = rng.normal(size=(3, 3, 8, 8)).astype(np.float32)
    optimizer.apply([gradient, np.ones(8, np.float32)], [kernel, bias])
    step = (before - kernel.numpy()).reshape(-1, 8)
    assert np.linalg.norm(step) == pytest.approx(0.1 * 8**0.5, rel=0.25)  # eight singular values near one
    assert np.sum(step * gradient.reshape(-1, 8)) > 0  # downhill
    np.testing.assert_allclose(bias.numpy(), -0.05, rtol=1e-3)  # Adam's first step is the learning rate
    again = Muon.from_config(Muon(0.1, share=0.5, ends=["last"]).get_config())
    assert (again.share, again.ends) == (0.5, ("last",))


def test_the_rate_warms_up_and_falls_to_zero():
    model = build_unet(Network(2, 1, dropout=(0, 0)))
    compile_model(model, Recipe(Network(), epochs=10, steps=10, lr=0.1, warmup=0.1))
    rate = model.optimizer._learning_rate
    assert [float(rate(step)) for step in (0, 10, 55, 100)] == pytest.approx([0.001, 0.1, 0.05, 0], abs=1e-6)


def test_several_classes_have_the_softmaxs_cross_entropy(rng):
    network = Network(2, 1, dropout=(0, 0), classes=3)
    model = build_unet(network)
    compile_model(model, Recipe(network, epochs=1, steps=1))
    images = rng.integers(0, 256, (2, 8, 8, 1)).astype(np.float32)
    labels = rng.integers(0, 3, (2, 8, 8, 1)).astype(np.float32)
    expected = -np.log(np.take_along_axis(model.predict_on_batch(images), labels.astype(int), axis=-1)).mean()
    assert model.test_on_batch(images, labels) == pytest.approx(expected, rel=1e-4)
    assert model.test_on_batch(images, labels, np.full((2, 8, 8), 2.0)) == pytest.approx(2 * expected, rel=1e-4)
