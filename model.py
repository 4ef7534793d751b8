"""The networks: one U-Net builder that loops over depth, and the published shapes by name. Imports Keras alone."""

from __future__ import annotations

from dataclasses import dataclass

import keras
from keras import layers


@dataclass(frozen=True)
class Network:
    """Shape of a U-Net; see `build_unet`."""

    filters: int = 16  # of the first level; each level below has twice as many
    depth: int = 4  # how often the image is halved
    padding: str = "same"  # 'same', or 'valid' as in the paper: the output is smaller than the input
    activation: str = "relu"
    dropout: tuple[float, ...] = (0.0, 0.0, 0.0, 0.3, 0.3)  # per level, from the top to the bottom
    dropout_between: bool = False  # between a level's two convolutions, and on the way up too; else behind them
    up: str = "transpose"  # 2x2 transposed convolution, or 'upsample': repeated pixels and a 2x2 convolution

    @property
    def stride(self) -> int:
        """Pixels that the bottom level's pixel stands for; same-padding inputs must be multiples of it."""
        return 2**self.depth

    @property
    def shrinkage(self) -> int:
        """Pixels that valid convolutions take off each side: 92 for the paper's network, 572 in and 388 out."""
        return 2 * self.stride + 4 * (self.stride - 1)

    @property
    def radius(self) -> int:
        """How far an output block of `stride` pixels on the pooling grid looks beyond itself, pixels.

        Followed from the output back: each level's convolutions reach 2 pixels of that level further, one more behind
        an up-sampling, and what is reached of a pooled pixel is reached whole. 94 for four halvings.
        """
        reach = 0
        for _level in range(self.depth):
            reach = -(-(reach + 2 + (self.up == "upsample")) // 2)
        reach += 2
        for _level in range(self.depth):
            reach = 2 * reach + 2
        return reach

    @property
    def margin(self) -> int:
        """Context that makes a stitched prediction seamless, pixels, for cores that are multiples of `stride`.

        Same padding: the radius, rounded up to the stride, so that all tiles pool on one grid. Valid convolutions never
        look beyond the tile; they put out 4 pixels more than a multiple of the stride, 2 on each side are cut off.
        """
        return self.shrinkage + 2 if self.padding == "valid" else -(-self.radius // self.stride) * self.stride


# the published shapes; the measured ones are in train.py beside their schedules
PUBLISHED = {
    # Ronneberger et al. 2015, figure 1: 572 in, 388 out, dropout at the end of the contracting path (section 3.1)
    "paper": Network(64, 4, "valid", dropout=(0, 0, 0, 0.5, 0.5)),
    # the Keras repository's: the same filters on padded images, up-sampling followed by a 2x2 convolution
    "keras": Network(64, 4, dropout=(0, 0, 0, 0.5, 0.5), up="upsample"),
    # the Data Science Bowl notebook's
    "nuclei": Network(16, 4, activation="elu", dropout=(0.1, 0.1, 0.2, 0.2, 0.3), dropout_between=True),
}


def build_unet(network: Network, channels: int = 1, mean: float = 0.0, sd: float = 255.0) -> keras.Model:
    """Build a U-Net: uint8 (batch, H, W, channels) -> float32 (batch, H', W', 1), the probability of cell.

    Ronneberger et al. 2015. With same padding H' = H and both sides must be multiples of `network.stride`; with valid
    padding H' = H - 2 * `network.shrinkage`. Any size goes in: the network is convolutional throughout.

    Parameters
    ----------
    network : its shape
    channels : of the input images
    mean, sd : grey levels that become 0 and 1 in the first layer, so that the scaling travels with the model
    """
    if len(network.dropout) != network.depth + 1:
        raise ValueError(f"{network.depth + 1} levels need as many dropout rates, got {network.dropout}")
    image = keras.Input((None, None, channels), dtype="uint8", name="image")
    x = layers.Rescaling(1 / sd, -mean / sd, name="scaling")(image)
    skips = []
    for level in range(network.depth):
        x = _two_convolutions(x, network, level, "down")
        skips.append(x)
        x = layers.MaxPooling2D(2, name=f"down{level}_pool")(x)
    x = _two_convolutions(x, network, network.depth, "bottom")
    for level in reversed(range(network.depth)):
        x = _up(x, network, level)
        skip = skips[level]
        if network.padding == "valid":
            skip = layers.Cropping2D(_surplus(network, level), name=f"up{level}_crop")(skip)
        x = layers.Concatenate(name=f"up{level}_join")([skip, x])
        x = _two_convolutions(x, network, level, "up")
    # float32 even in mixed precision: small probabilities decide where a membrane has a gap
    probability = layers.Conv2D(1, 1, activation="sigmoid", dtype="float32", name="probability")(x)
    return keras.Model(image, probability, name="unet")


def _two_convolutions(x, network: Network, level: int, way: str):
    """Two 3x3 convolutions: (batch, h, w, any) -> (batch, h, w, filters * 2^level); valid ones lose 4 pixels a side."""
    rate = network.dropout[level]
    for number in (1, 2):
        x = layers.Conv2D(network.filters * 2**level, 3, padding=network.padding, activation=network.activation,
                          kernel_initializer="he_normal", name=f"{way}{level}_conv{number}")(x)
        here = number == 1 if network.dropout_between else number == 2 and way != "up"
        if rate and here:
            x = layers.Dropout(rate, name=f"{way}{level}_dropout")(x)
    return x


def _up(x, network: Network, level: int):
    """Twice the size: (batch, h, w, 2f) -> (batch, 2h, 2w, f) with the filters f of `level`."""
    filters = network.filters * 2**level
    if network.up == "transpose":
        return layers.Conv2DTranspose(filters, 2, strides=2, padding="same", name=f"up{level}_transpose")(x)
    x = layers.UpSampling2D(2, name=f"up{level}_repeat")(x)
    return layers.Conv2D(filters, 2, padding="same", activation=network.activation, kernel_initializer="he_normal",
                         name=f"up{level}_conv0")(x)


def _surplus(network: Network, level: int) -> int:
    """Pixels by which a valid network's skip is wider on each side than the up-sampled map that it joins."""
    # the bottom's convolutions take 2 of its pixels a side, and each level between, down and up, 4 of its own
    taken = 2 * network.stride + sum(4 * 2**k for k in range(level + 1, network.depth))
    return taken // 2**level
