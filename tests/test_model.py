"""The networks: published shapes by their numbers, sizes in and out, the receptive field that the margin covers."""

from functools import lru_cache

import keras
import numpy as np
import pytest

from model import PRESETS, Network, build_unet

built = lru_cache(build_unet)  # the large ones take a second each


@pytest.mark.parametrize(("name", "channels", "parameters"), [
    ("paper", 1, 31_030_593),  # 31,030,658 with the paper's two outputs, of which one sigmoid is left here
    ("keras", 1, 31_030_593),
    ("nuclei", 3, 1_941_105),
])
def test_published_shapes_have_their_parameters(name, channels, parameters):
    assert built(PRESETS[name].network, channels).count_params() == parameters


def test_paper_takes_572_and_gives_388():
    model = built(PRESETS["paper"].network, 1)
    assert model.compute_output_shape((1, 572, 572, 1)) == (1, 388, 388, 1)
    assert PRESETS["paper"].network.shrinkage == 92  # (572 - 388) / 2
    skips = [layer.cropping[0][0] for layer in model.layers if isinstance(layer, keras.layers.Cropping2D)]
    assert skips == [4, 16, 40, 88]  # figure 1: 64-56, 136-104, 280-200, 568-392, half of each


@pytest.mark.parametrize("network", [
    Network(2, 2, dropout=(0,) * 3), Network(2, 3, dropout=(0,) * 4),
    Network(2, 2, up="upsample", dropout=(0,) * 3, activation="elu"), Network(2, 2, half=True, dropout=(0,) * 3)])
def test_receptive_field_is_as_wide_as_the_radius_says(network):
    """Change one row of the input after the other: a block in the middle answers up to the radius, not beyond."""
    keras.utils.set_random_seed(1)
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy("float64")  # float32 would lose what arrives from the far ends
    try:
        model = build_unet(network)
    finally:
        keras.config.set_dtype_policy(policy)
    for layer in model.layers:  # all weights positive: no influence can vanish in a ReLU
        layer.set_weights([np.abs(weight) for weight in layer.get_weights()])
    logit = keras.Model(model.input, model.layers[-1].input)
    start = network.margin + 2 * network.stride
    side = 2 * start + network.stride
    images = np.full((side + 1, side, network.stride, 1), 100, np.uint8)
    for row in range(side):
        images[row, row] = 200
    answers = logit.predict_on_batch(images)[:, start:start + network.stride]
    reached = np.flatnonzero(np.abs(answers[:-1] - answers[-1]).max(axis=(1, 2, 3)) > 1e-13 * np.abs(answers[-1]).max())
    before, after = start - reached[0], reached[-1] - (start + network.stride - 1)
    assert max(before, after) == network.radius
    assert network.radius <= network.margin < network.radius + network.stride


def test_every_network_ends_in_a_sigmoid_without_a_relu_before_it():
    for recipe in PRESETS.values():
        last = built(recipe.network, 1).layers[-1]
        assert (last.filters, last.kernel_size, last.activation.__name__) == (1, (1, 1), "sigmoid")
        assert last.compute_dtype == "float32"


def test_nuclei_preset_is_the_published_recipe_layer_by_layer():
    """The Data Science Bowl notebook's network, for 3 channels scaled from 0..255 inside the model."""
    def pair(filters, rate):
        convolution = ("Conv2D", filters, 3, 1, "same", "elu", "HeNormal")
        return [convolution, ("Dropout", rate), convolution]

    expected = [("InputLayer",), ("Rescaling", 1 / 255)]
    for filters, rate in ((16, 0.1), (32, 0.1), (64, 0.2), (128, 0.2)):
        expected += [*pair(filters, rate), ("MaxPooling2D", 2, 2)]
    expected += pair(256, 0.3)
    for filters, rate in ((128, 0.2), (64, 0.2), (32, 0.1), (16, 0.1)):
        expected += [("Conv2DTranspose", filters, 2, 2, "same", "linear", "GlorotUniform"), ("Concatenate", -1),
                     *pair(filters, rate)]
    expected.append(("Conv2D", 1, 1, 1, "same", "sigmoid", "GlorotUniform"))  # of 1x1, padding says nothing

    def described(layer):
        kind = type(layer).__name__
        if kind.startswith("Conv2D"):
            padding = "same" if layer.kernel_size == (1, 1) else layer.padding
            return (kind, layer.filters, layer.kernel_size[0], layer.strides[0], padding, layer.activation.__name__,
                    type(layer.kernel_initializer).__name__)
        values = {"Dropout": ["rate"], "Rescaling": ["scale"], "Concatenate": ["axis"]}.get(kind, [])
        pooled = (layer.pool_size[0], layer.strides[0]) if kind == "MaxPooling2D" else ()
        return (kind, *(getattr(layer, name) for name in values), *pooled)

    model = built(PRESETS["nuclei"].network, 3)
    assert [described(layer) for layer in model.layers] == expected
    assert model.count_params() == 1_941_105
    assert all(layer.dtype_policy.compute_dtype == "float32" for layer in model.layers)
    recipe = PRESETS["nuclei"]
    assert (recipe.epochs, recipe.batch, recipe.optimizer, recipe.lr, recipe.warmup) == (20, 16, "adam", 1e-3, 0.0)


def test_several_classes_end_in_a_softmax():
    last = build_unet(Network(2, 1, dropout=(0, 0), classes=3)).layers[-1]
    assert (last.filters, last.activation.__name__) == (3, "softmax")


def test_dropout_rates_must_fit_the_depth():
    with pytest.raises(ValueError, match="4 levels"):
        build_unet(Network(4, 3))


def test_an_encoder_is_handed_in():
    network = Network(2, 5, dropout=(0,) * 6, encoder="of the test")

    def encode(image):
        return [image, *(keras.layers.AveragePooling2D(2**k)(image) for k in range(1, 6))]

    model = build_unet(network, encode=encode)
    assert model.compute_output_shape((1, 64, 96, 1)) == (1, 64, 96, 1)
    for given, encoder in ((network, None), (Network(2, 4), encode)):
        with pytest.raises(ValueError, match="pass `encode` for a network"):
            build_unet(given, encode=encoder)
    with pytest.raises(ValueError, match="a depth of 5"):
        build_unet(Network(4, encoder="of the test"), encode=encode)


def test_presets_predict_at_the_images_own_size():
    assert {recipe.zooms for recipe in PRESETS.values()} == {(1.0,)}
