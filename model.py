"""The networks: one U-Net builder that loops over depth, and presets by name; it needs only Keras.

    python model.py export results/model.keras --out FOLDER    write a trained network for other programs
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from unet.system.quiet import import_quietly
from unet.system.signals import end_at_once

if __name__ == "__main__":
    end_at_once()
    import_quietly()

import keras
from keras import layers

from unet.network import HALVINGS, Network
from utils import Parser, run

HEAD_FILTERS = 8  # filters of the small block at full resolution that follows a network at half resolution


@dataclass(frozen=True)
class Recipe:
    """A network and the fixed schedule that trains it; nothing here depends on the held-out slices."""

    network: Network
    epochs: int = 24
    steps: int = 100  # per epoch: an epoch is a part of the schedule, not a pass over all tiles
    batch: int = 4  # tiles per step
    lr: float = 5e-4  # peak learning rate: linear warm-up, then a cosine to zero
    warmup: float = 0.1  # share of the schedule
    average: float = 0.2  # last share of the schedule, over whose epochs the weights are averaged
    optimizer: str = "adam"  # 'adam', 'muon' or 'sgd' with momentum 0.99
    intensity: float = 0.0  # strength of random gamma, contrast, brightness and noise for cells; 1 is a lot
    affinities: float = 0.0  # weight of their term in the loss for cells, see unet/training/affinities.py
    validation: bool = False  # hold back a validation block, the last fifth of the training slices, for the curve
    patience: int | None = None  # stop if the loss on that block has not fallen for so many epochs
    pretrained: str = "none"  # weights that an encoder starts from: 'imagenet', or 'none'
    flips: int = 1  # test-time flips and turns whose predictions are averaged: 1 (none) to 8
    zooms: tuple[float, ...] = (1.0,)  # test-time magnifications of the image whose predictions are averaged
    walls: bool = False  # also draw predicted membranes as walls along their crests, see unet/segment
    look_back: int = 10  # last training slices that are predicted, too, to learn which walls are membranes


HALF_RESOLUTION = Network(24, 3, dropout=(0, 0, 0, 0), half=True)
PRESETS = {
    # found by cross-validation inside slices 0-24 of ISBI on two cores. Longer runs need dropout and gain from more
    # `intensity`; short ones gain from a higher learning rate instead: 250 steps were as good as 500 at 0.02
    "fast": Recipe(HALF_RESOLUTION, epochs=5, steps=48, lr=0.03, optimizer="muon", intensity=0.4, affinities=0.5,
                   flips=8, walls=True),
    "cpu": Recipe(replace(HALF_RESOLUTION, dropout=(0, 0, 0.2, 0.2)), epochs=25, lr=0.02, optimizer="muon",
                  intensity=0.8, affinities=0.5, flips=8, walls=True),
    "best": Recipe(replace(HALF_RESOLUTION, dropout=(0, 0, 0.2, 0.2)), epochs=50, lr=0.02, optimizer="muon",
                   intensity=0.8, affinities=0.5, flips=8, walls=True, look_back=25),
    # full resolution and full size, for a GPU; not tested on one
    "gpu": Recipe(Network(64, 4), epochs=60, batch=8, lr=0.02, optimizer="muon", intensity=0.8, affinities=0.5, flips=8,
                  walls=True),
    # Ronneberger et al. 2015, figure 1: 572 in, 388 out, dropout at the end of the contracting path (section 3.1);
    # one tile per batch and momentum 0.99 (section 3). The paper gives no learning rate: the rate, its schedule and
    # the limit on the gradient's norm are ours
    "paper": Recipe(Network(64, 4, "valid", dropout=(0, 0, 0, 0.5, 0.5)), batch=1, lr=1e-3, optimizer="sgd"),
    # as in the Keras repository: the same filters on padded images, up-sampling, then a 2x2 convolution
    "keras": Recipe(Network(64, 4, dropout=(0, 0, 0, 0.5, 0.5), up="upsample"), lr=1e-4),
    # as in the Data Science Bowl notebook
    "nuclei": Recipe(Network(16, 4, activation="elu", dropout=(0.1, 0.1, 0.2, 0.2, 0.3), dropout_between=True),
                     epochs=20, batch=16, lr=1e-3, warmup=0.0, average=0.0),
}


def with_encoder(recipe: Recipe, encoder: str, pretrained: str = "none") -> Recipe:
    """Return a recipe with a network of keras.applications as its contracting path, and 16 to 256 filters back up.

    Adam trains it, at a lower rate if the encoder is pretrained; neither rate is tuned. The last weights predict, not
    the mean over the schedule's end: batch normalisation's moving averages would not fit a mean of weights (Izmailov et
    al. 2018, section 3.2), and by then the rate is near zero.
    """
    network = Network(16, HALVINGS, dropout=(0.0,) * (HALVINGS + 1), encoder=encoder)
    return replace(recipe, network=network, optimizer="adam", lr=1e-3 if pretrained == "none" else 3e-4, average=0.0,
                   affinities=0.0, pretrained=pretrained)


def build_unet(network: Network, channels: int = 1, mean: float = 0.0, sd: float = 255.0,
               encode: Callable | None = None) -> keras.Model:
    """Build a U-Net: grey levels (batch, H, W, channels) -> float32 (batch, H', W', classes), probabilities.

    With one class it is the probability of cell; with more, one for each class, with a sum of 1.

    Ronneberger et al. 2015. With same padding H' = H, and both sides must be multiples of `network.stride`; with valid
    padding H' = H - 2 * `network.shrinkage`. The network takes images of any size: it is fully convolutional.

    Parameters
    ----------
    network : shape of the U-Net
    channels : number of channels of the input images
    mean, sd : the first layer subtracts `mean` and divides by `sd`, so that the scaling is saved with the model; an
        encoder has its own preprocessing instead, for the grey levels that it was published for
    encode : the contracting path of a network with an encoder: image -> its features at strides 1 to 32, as
        `unet.training.encoders.encode` returns them

    Raises ValueError for an impossible shape.
    """
    if len(network.dropout) != network.depth + 1:
        raise ValueError(f"{network.depth + 1} levels need as many dropout rates, got {network.dropout}")
    if network.half and network.padding == "valid":
        raise ValueError("a network at half resolution pads its images")
    if bool(network.encoder) != bool(encode):
        raise ValueError("pass `encode` for a network with an encoder, and only for such a network")
    if encode and (network.padding == "valid" or network.half or network.depth != HALVINGS):
        raise ValueError(f"a network with an encoder has same padding, full resolution and a depth of {HALVINGS}")
    image = keras.Input((None, None, channels), name="image")
    top = layers.Rescaling(1 / sd, -mean / sd, name="scaling")(image)
    x = _convolution(top, network.filters, 4, network, "stem", strides=2) if network.half else top
    if encode:
        *skips, x = encode(image)
        skips[0] = _convolution(top, network.filters, 3, network, "edge") if skips[0] is None else skips[0]
    else:
        skips, x = _contract(x, network)
    for level in reversed(range(network.depth)):
        x = _up(x, network, level)
        skip = skips[level]
        if network.padding == "valid":
            skip = layers.Cropping2D(_surplus(network, level), name=f"up{level}_crop")(skip)
        x = layers.Concatenate(name=f"up{level}_join")([skip, x])
        x = _two_convolutions(x, network, level, "up")
    if network.half:
        x = _to_full_resolution(x, top, network)
    # float32 even in mixed precision: small probabilities decide where a membrane has a gap
    probability = layers.Conv2D(network.classes, 1, activation="softmax" if network.classes > 1 else "sigmoid",
                                dtype="float32", name="probability")(x)
    return keras.Model(image, probability, name="unet")


def _contract(x, network: Network) -> tuple[list, object]:
    """Add the contracting path; return the skips, from the top down, and the bottom level."""
    skips = []
    for level in range(network.depth):
        x = _two_convolutions(x, network, level, "down")
        skips.append(x)
        x = layers.MaxPooling2D(2, name=f"down{level}_pool")(x)
    return skips, _two_convolutions(x, network, network.depth, "bottom")


def _convolution(x, filters: int, size: int, network: Network, name: str, strides: int = 1):
    return layers.Conv2D(filters, size, strides, padding=network.padding, activation=network.activation,
                         kernel_initializer="he_normal", name=name)(x)


def _two_convolutions(x, network: Network, level: int, way: str):
    """Add two 3x3 convolutions: (batch, h, w, any) -> (batch, h, w, filters * 2^level).

    Valid convolutions shorten each side by 4 pixels.
    """
    rate = network.dropout[level]
    for number in (1, 2):
        x = _convolution(x, network.filters * 2**level, 3, network, f"{way}{level}_conv{number}")
        drops_here = number == 1 if network.dropout_between else number == 2 and way != "up"
        if rate and drops_here:
            x = layers.Dropout(rate, name=f"{way}{level}_dropout")(x)
    return x


def _up(x, network: Network, level: int):
    """Double the size: (batch, h, w, 2f) -> (batch, 2h, 2w, f) with the filters f of `level`."""
    filters = network.filters * 2**level
    if network.up == "transpose":
        return layers.Conv2DTranspose(filters, 2, strides=2, padding="same", name=f"up{level}_transpose")(x)
    x = layers.UpSampling2D(2, name=f"up{level}_repeat")(x)
    return layers.Conv2D(filters, 2, padding="same", activation=network.activation, kernel_initializer="he_normal",
                         name=f"up{level}_conv0")(x)


def _to_full_resolution(x, top, network: Network):
    """Double the size of the last features, and join them with features of the image itself, `top`."""
    x = layers.Conv2DTranspose(HEAD_FILTERS, 2, strides=2, activation=network.activation, name="head_transpose")(x)
    x = layers.Concatenate(name="head_join")([_convolution(top, HEAD_FILTERS, 3, network, "head_edge"), x])
    return _convolution(x, HEAD_FILTERS, 3, network, "head_conv")


def _surplus(network: Network, level: int) -> int:
    """Return by how many pixels a valid network's skip is wider, on each side, than the map that it joins."""
    # the bottom's convolutions cut off 2 of its pixels per side, and each level between, down and up, 4 of its own
    cut_off = 2 * network.stride + sum(4 * 2**k for k in range(level + 1, network.depth))
    return cut_off // 2**level


# -------------------------------------------------------------------------------------------------- command line


def options() -> argparse.ArgumentParser:
    """Return the command line of `python model.py`."""
    parser = Parser(description=__doc__.split("\n")[0])
    commands = parser.add_subparsers(required=True)
    export = commands.add_parser("export", help="write a trained network for other programs")
    export.add_argument("model", type=Path, nargs="?", default=Path("results/model.keras"), metavar="MODEL",
                        help="the trained model; config.json lies beside it")
    export.add_argument("--out", type=Path, default=Path("export"), help="a new folder, or that of an earlier export")
    export.add_argument("--format", help="formats, separated by commas: bioimageio, onnx, savedmodel, openvino "
                                         "(default: all)")
    export.add_argument("--sample", type=Path, metavar="IMAGE", help="an image for the test tensors and the cover "
                        "picture (default: a held-out one of the run's data)")
    return parser


def main() -> None:
    args = options().parse_args()
    from unet.export.formats import export
    for line in export(args.model, args.out, args.format, args.sample):
        print(line)


if __name__ == "__main__":
    run(main)
