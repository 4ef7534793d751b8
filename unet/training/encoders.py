"""Build any U-Net, also one with a network of `keras.applications` as its contracting path. Needs only Keras."""

from __future__ import annotations

import re
import warnings
from contextlib import nullcontext
from functools import partial

import keras
import numpy as np
from keras import layers, ops

from model import HALVINGS, Network, build_unet
from unet.system.signals import delay_signals
from utils import UserError

# those that halve the image evenly down to 1/32; not Xception and Inception, whose unpadded convolutions cut off odd
# numbers of pixels, nor EfficientNet and MobileNetV3, which average over the whole tile: stitching would show seams
ENCODERS = {"vgg16": "VGG16", "vgg19": "VGG19", "resnet50": "ResNet50", "resnet101": "ResNet101",
            "resnet50v2": "ResNet50V2", "resnet101v2": "ResNet101V2", "densenet121": "DenseNet121",
            "densenet169": "DenseNet169", "mobilenet": "MobileNet", "mobilenetv2": "MobileNetV2"}
MODULES = {"resnet101": "resnet", "resnet50": "resnet", "resnet50v2": "resnet_v2", "resnet101v2": "resnet_v2",
           "densenet121": "densenet", "densenet169": "densenet", "mobilenetv2": "mobilenet_v2"}  # others: their name
PRETRAINED = ("none", "imagenet")
PROBE = 256  # side of the image that shows a layer's stride, pixels


def build(network: Network, channels: int, normalisation: dict, pretrained: str = "none") -> keras.Model:
    """Build a network with `model.build_unet`, with an encoder or without; raises UserError if a download fails.

    Parameters
    ----------
    normalisation : `mean` and `sd` of the grey levels; the first layer subtracts one and divides by the other
    pretrained : 'imagenet' for an encoder trained on ImageNet, otherwise 'none'
    """
    encoder = partial(encode, name=network.encoder, pretrained=pretrained) if network.encoder else None
    with delay_signals() if pretrained == "none" else nullcontext():  # a download may take long and has to be stoppable
        return build_unet(network, channels, **normalisation, encode=encoder)


def encode(image, name: str, pretrained: str = "none") -> list:
    """Encode grey levels (batch, H, W, C): features (batch, H / 2^k, W / 2^k, any) at strides 2^k, k = 0 .. 5.

    C is 1, repeated to three channels, or 3. The application's own preprocessing is the first layer, so that grey
    levels from 0 to 255 go in. The features are the output of the last layer at each stride; at full resolution they
    are None if the encoder has no convolution there. Raises ValueError for an unknown encoder or another number of
    channels, UserError if the weights cannot be downloaded.
    """
    if name not in ENCODERS:
        raise ValueError(f"encoder {name!r}, expected one of {', '.join(ENCODERS)}")
    channels = image.shape[-1]
    if channels not in (1, 3):
        raise ValueError(f"an encoder takes images of 1 or 3 channels, not {channels}")
    network = _application(name, pretrained)
    features = keras.Model(network.input, list(last_of_each_stride(network).values()), name=f"encoder_{name}")
    full, *others = features(_preprocessing(image, name))
    return [None if full.shape[-1] == 3 else full, *others]  # three channels: it is the image itself


def last_of_each_stride(network: keras.Model) -> dict:
    """Return the output of the last layer at each stride 1, 2, 4 .. 32, found by the output's size for a square image.

    Outputs whose side does not divide the image's are skipped: those between an odd padding and the convolution that
    removes it. Raises ValueError if a stride is missing.
    """
    outputs = [layer.output for layer in network.layers]
    shapes = keras.Model(network.input, outputs).compute_output_shape((1, PROBE, PROBE, 3))
    last = {}
    for output, shape in zip(outputs, shapes, strict=True):
        if len(shape) == 4 and shape[1] and PROBE % shape[1] == 0:
            last[PROBE // shape[1]] = output
    missing = [2**k for k in range(HALVINGS + 1) if 2**k not in last]
    if missing:
        raise ValueError(f"{network.name} has no features at stride {', '.join(map(str, missing))}")
    return {2**k: last[2**k] for k in range(HALVINGS + 1)}


def _application(name: str, pretrained: str) -> keras.Model:
    application = getattr(keras.applications, ENCODERS[name])
    weights = None if pretrained == "none" else pretrained
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*input_shape. is undefined")  # weights are for any size
            return application(include_top=False, weights=weights, input_shape=(None, None, 3))
    except Exception as error:  # Keras raises a bare Exception if a download fails
        if not weights:
            raise
        file = re.search(r"[\w.-]+\.h5", str(error))
        raise UserError(f"the {pretrained} weights of {name} cannot be downloaded; train with --pretrained none, or "
                        f"put {file[0] if file else 'their file'} into ~/.keras/models") from error


def _preprocessing(image, name: str):
    """Apply the application's own preprocessing as a fixed 1x1 convolution: (batch, H, W, C) -> (batch, H, W, 3).

    It is the same matrix and offset for each pixel (order of channels, scale, mean), found by its output for black,
    red, green and blue. Grey goes into all three channels.
    """
    module = getattr(keras.applications, MODULES.get(name, name))
    colours = ops.concatenate([ops.zeros((1, 3)), 255 * ops.eye(3)])
    black, *pure = ops.convert_to_numpy(module.preprocess_input(ops.reshape(colours, (1, 1, 4, 3))))[0, 0]
    kernel = (np.stack(pure) - black) / 255
    if image.shape[-1] == 1:
        kernel = kernel.sum(axis=0, keepdims=True)
    layer = layers.Conv2D(3, 1, dtype="float32", trainable=False, name="preprocessing")
    output = layer(image)
    layer.set_weights([kernel[None, None], black])
    return output
