"""The shape of a U-Net and what follows from it: stride, receptive field, margin. Nothing is imported for it."""

from __future__ import annotations

from dataclasses import dataclass

HALVINGS = 5  # of every encoder
ENCODER_RADIUS = 128  # pixels; across it ResNet50 with random weights: .0003 of the logits' standard deviation
# (y, x), pixels: between pixels of which the network is asked, while it trains, whether they share a cell
OFFSETS = ((0, 4), (4, 0), (0, 12), (12, 0), (12, 12), (12, -12), (0, 26), (26, 0), (26, 26), (26, -26))


@dataclass(frozen=True)
class Network:
    """Shape of a U-Net; see `build_unet`."""

    filters: int = 16  # of the first level; each level below has twice as many
    depth: int = 4  # how often the first level is halved
    padding: str = "same"  # 'same', or 'valid' as in the paper: the output is smaller than the input
    activation: str = "relu"
    dropout: tuple[float, ...] = (0.0, 0.0, 0.0, 0.3, 0.3)  # per level, from the top to the bottom
    dropout_between: bool = False  # between a level's two convolutions, and on the way up too; else behind them
    up: str = "transpose"  # 2x2 transposed convolution, or 'upsample': repeated pixels and a 2x2 convolution
    half: bool = False  # first level at half the image's resolution: a strided convolution in, a light block out
    encoder: str = ""  # a network of keras.applications as the contracting path, see unet/training/encoders.py
    classes: int = 1  # 1: a sigmoid, the probability of cell; more: a softmax over as many

    @property
    def stride(self) -> int:
        """Pixels that the bottom level's pixel stands for; same-padding inputs must be multiples of it."""
        return 2 ** (self.depth + self.half)

    @property
    def shrinkage(self) -> int:
        """Pixels that valid convolutions take off each side: 92 for the paper's network, 572 in and 388 out."""
        return 2 * self.stride + 4 * (self.stride - 1)

    @property
    def radius(self) -> int:
        """How far an output block of `stride` pixels on the pooling grid looks beyond itself, pixels.

        Followed from the output back: each level's convolutions reach 2 pixels of that level further, one more behind
        an up-sampling, and what is reached of a pooled pixel is reached whole. 94 for four halvings. Of encoders, which
        reach several hundred pixels and hardly see the far ones, ENCODER_RADIUS, which was measured.
        """
        if self.encoder:
            return ENCODER_RADIUS
        reach = 1 if self.half else 0  # the light block's convolution: one pixel, so one of half resolution
        for _level in range(self.depth):
            reach = -(-(reach + 2 + (self.up == "upsample")) // 2)
        reach += 2
        for _level in range(self.depth):
            reach = 2 * reach + 2
        return 2 * reach + 1 if self.half else reach  # the first convolution is 4 wide at a stride of 2

    @property
    def margin(self) -> int:
        """Context that makes a stitched prediction seamless, pixels, for cores that are multiples of `stride`.

        Same padding: the radius, rounded up to the stride, so that all tiles pool on one grid. Valid convolutions never
        look beyond the tile; they put out 4 pixels more than a multiple of the stride, 2 on each side are cut off.
        """
        return self.shrinkage + 2 if self.padding == "valid" else -(-self.radius // self.stride) * self.stride
