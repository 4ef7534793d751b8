"""Networks of keras.applications as the contracting path: which layers are the skips, and what goes in."""

import keras
import numpy as np
import pytest

from model import Network
from unet.training import encoders
from unet.training.encoders import ENCODERS, MODULES, build, encode, last_of_each_stride
from utils import UserError

RAW = {"mean": 0.0, "sd": 255.0}
LEVELS = {"depth": 5, "dropout": (0,) * 6}
SKIPS = {  # by name, at strides 2 to 32, as the networks' authors drew their stages
    "vgg16": ["block2_conv2", "block3_conv3", "block4_conv3", "block5_conv3", "block5_pool"],
    "resnet50": ["conv1_relu", "conv2_block3_out", "conv3_block4_out", "conv4_block6_out", "conv5_block3_out"],
    "mobilenetv2": ["block_1_expand_relu", "block_3_expand_relu", "block_6_expand_relu", "block_13_expand_relu",
                    "out_relu"],
}


@pytest.mark.parametrize("name", SKIPS)
def test_the_last_layer_of_each_stride_is_the_skip(name):
    network = encoders._application(name, "none")
    last = last_of_each_stride(network)
    assert list(last) == [1, 2, 4, 8, 16, 32]
    assert [last[stride] is network.get_layer(layer).output
            for stride, layer in zip((2, 4, 8, 16, 32), SKIPS[name], strict=True)] == [True] * 5


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", ENCODERS)
def test_preprocessing_is_the_applications_own(name, channels, rng):
    image = keras.Input((None, None, channels))
    model = keras.Model(image, encoders._preprocessing(image, name))
    pixels = rng.integers(0, 256, (1, 5, 7, channels)).astype(np.float32)
    module = getattr(keras.applications, MODULES.get(name, name))
    expected = module.preprocess_input(np.repeat(pixels, 3 // channels, axis=-1))
    np.testing.assert_allclose(model.predict_on_batch(pixels), expected, atol=2e-4)


@pytest.mark.parametrize("name", ["vgg16", "mobilenetv2"])
def test_an_encoder_network_gives_a_probability_for_each_pixel(name):
    network = Network(4, encoder=name, **LEVELS)
    assert network.stride == 32
    assert network.margin % 32 == 0
    model = build(network, 1, {"mean": 128.0, "sd": 40.0})
    assert model.compute_output_shape((1, 96, 64, 1)) == (1, 96, 64, 1)
    # full resolution comes from the encoder itself, or where it begins with a stride from one convolution
    assert ("edge" in [layer.name for layer in model.layers]) == (name == "mobilenetv2")


def test_all_but_the_preprocessing_can_be_trained():
    model = build(Network(4, encoder="mobilenetv2", **LEVELS), 1, RAW)
    fixed = [weight.path for weight in model.non_trainable_weights if "moving" not in weight.path]
    assert fixed == ["preprocessing/kernel", "preprocessing/bias"]


def test_weights_that_cannot_be_downloaded_are_one_clear_line(monkeypatch):
    def offline(**_):
        raise Exception("URL fetch failure on https://host/folder/vgg16_notop.h5: None")

    monkeypatch.setattr(keras.applications, "VGG16", offline)
    with pytest.raises(UserError, match=r"--pretrained none, or put vgg16_notop\.h5 into") as caught:
        build(Network(4, encoder="vgg16", **LEVELS), 1, RAW, "imagenet")
    assert "\n" not in str(caught.value)


def test_what_cannot_be_an_encoder_is_refused():
    with pytest.raises(ValueError, match="expected one of vgg16"):
        encode(keras.Input((None, None, 1)), "vgg")
    with pytest.raises(ValueError, match="1 or 3 channels"):
        encode(keras.Input((None, None, 4)), "vgg16")
    image = keras.Input((None, None, 3))
    uneven = keras.Model(image, keras.layers.Conv2D(4, 3, strides=2)(image))
    with pytest.raises(ValueError, match="stride 2, 4, 8"):
        last_of_each_stride(uneven)
