"""The shape of a U-Net and what follows from it: stride, receptive field, margin. It needs no packages."""

from __future__ import annotations

from dataclasses import dataclass

HALVINGS = 5  # depth of every encoder
ENCODER_RADIUS = 128  # pixels; changes further away move ResNet50's logits (random weights) by .0003 of their sd
# (y, x), pixels: in training the network also learns whether two pixels this far apart belong to the same cell
OFFSETS = ((0, 4), (4, 0), (0, 12), (12, 0), (12, 12), (12, -12), (0, 26), (26, 0), (26, 26), (26, -26))


@dataclass(frozen=True)
class Network:
    """The shape of a U-Net; see `build_unet`."""

    filters: int = 16  # of the first level; each level below has twice as many
    depth: int = 4  # how often the first level is halved
    padding: str = "same"  # 'same', or 'valid' as in the paper: the output is smaller than the input
    activation: str = "relu"
    dropout: tuple[float, ...] = (0.0, 0.0, 0.0, 0.3, 0.3)  # per level, from the top to the bottom
    dropout_between: bool = False  # between a level's two convolutions, also on the way up; otherwise after them
    up: str = "transpose"  # 2x2 transposed convolution, or 'upsample': repeated pixels and a 2x2 convolution
    half: bool = False  # first level at half the image's resolution: a strided convolution in, a light block out
    encoder: str = ""  # a network of keras.applications as the contracting path, see unet/training/encoders.py
    classes: int = 1  # 1: a sigmoid, the probability of cell; more: a softmax over the classes

    @property
    def stride(self) -> int:
        """Side in pixels of the block that one pixel of the bottom level covers; padded inputs are multiples of it."""
        return 2 ** (self.depth + self.half)

    @property
    def shrinkage(self) -> int:
        """Pixels that valid convolutions cut off each side: 92 for the paper's network, 572 in and 388 out."""
        return 2 * self.stride + 4 * (self.stride - 1)

    @property
    def radius(self) -> int:
        """Radius of the receptive field: how far an output block of `stride` pixels looks beyond itself, pixels.

        Computed from the output back: each level's convolutions reach 2 pixels of that level further, one more after
        an up-sampling, and a pooled pixel that is reached in part counts as a whole. 94 for four halvings. Encoders
        reach several hundred pixels but hardly use the far ones; theirs is ENCODER_RADIUS, which was measured.
        """
        if self.encoder:
            return ENCODER_RADIUS
        reach = 1 if self.half else 0  # the last block's convolution: one pixel, so one at half resolution
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
        look beyond the tile; their output is 4 pixels larger than a multiple of the stride, so 2 are cut off each side.
        """
        return self.shrinkage + 2 if self.padding == "valid" else -(-self.radius // self.stride) * self.stride
