"""How a network learns: the loss, the schedule of the learning rate, and the optimizer Muon. Needs only Keras."""

from __future__ import annotations

from functools import partial
from pathlib import PurePosixPath

import keras
from keras import ops

from model import Network, Recipe
from unet.training.affinities import NAME as AFFINITIES


def compile_model(model: keras.Model, recipe: Recipe) -> None:
    """Give a model its loss and the recipe's optimizer: warm-up, cosine to zero, gradients of norm 1 at most.

    The loss is binary cross-entropy for one class, that of the softmax against labels 0 .. classes - 1 for more.
    """
    total = recipe.epochs * recipe.steps
    warmup = max(1, round(total * recipe.warmup))
    rate = keras.optimizers.schedules.CosineDecay(recipe.lr / 100, max(1, total - warmup), warmup_target=recipe.lr,
                                                  warmup_steps=warmup)
    optimizer = {"adam": keras.optimizers.Adam, "muon": partial(Muon, ends=(*end_layers(recipe.network), AFFINITIES)),
                 "sgd": partial(keras.optimizers.SGD, momentum=0.99)}[recipe.optimizer]
    loss = "binary_crossentropy" if recipe.network.classes == 1 else "sparse_categorical_crossentropy"
    # no XLA, Keras's default on GPUs: it compiles for minutes, again for each shape, and fails in some installations
    model.compile(optimizer(rate, global_clipnorm=1.0), loss=loss, jit_compile=False)


def end_layers(network: Network) -> tuple[str, ...]:
    """Return the names of the layers whose input is the image itself, and of the last one."""
    first = ("stem", "head_edge") if network.half else ("edge",) if network.encoder else ("down0_conv1",)
    return (*first, "probability")


@keras.saving.register_keras_serializable("keras-unet")
class Muon(keras.optimizers.Adam):
    """An optimizer: steps of equal size in every direction for kernels of hidden convolutions, Adam for the rest.

    A kernel's averaged gradient, with its last axis as the columns of a matrix, is replaced by the nearest matrix
    with orthogonal columns or rows, found by five Newton-Schulz iterations (K. Jordan et al. 2024, "Muon: an optimizer
    for hidden layers"). Biases, kernels of fewer than 8 channels and those of the layers named in `ends` are Adam's,
    at `share` of the learning rate.
    """

    def __init__(self, learning_rate=0.02, momentum=0.95, share=0.15, ends=(), **kwargs):
        super().__init__(learning_rate, **kwargs)
        self.momentum, self.share, self.ends = momentum, share, tuple(ends)

    def build(self, variables: list) -> None:
        # chosen here, as TensorFlow's update_step gets variables without the path that names their layer
        self.hidden = [len(variable.shape) == 4 and min(variable.shape[2:]) >= 8
                       and PurePosixPath(variable.path).parent.name not in self.ends for variable in variables]
        super().build(variables)

    def update_step(self, gradient, variable, learning_rate):
        index = self._get_variable_index(variable)
        if not self.hidden[index]:
            super().update_step(gradient, variable, learning_rate * self.share)
            return
        shape, average = variable.shape, self._momentums[index]
        self.assign(average, self.momentum * average + (1 - self.momentum) * ops.cast(gradient, average.dtype))
        step = (1 - self.momentum) * ops.cast(gradient, average.dtype) + self.momentum * average  # Nesterov's
        step = orthogonal(ops.reshape(step, (-1, shape[-1])))
        self.assign_sub(variable, ops.cast(learning_rate, variable.dtype) * ops.reshape(step, shape))

    def get_config(self) -> dict:
        return {**super().get_config(), "momentum": self.momentum, "share": self.share, "ends": self.ends}


def orthogonal(matrix):
    """Move all singular values of a matrix (m, n) towards 1: between about 0.7 and 1.2 after five iterations."""
    rows, columns = matrix.shape
    x = matrix / (ops.norm(matrix) + 1e-12)
    x = ops.cast(x if rows >= columns else ops.transpose(x), keras.config.dtype_policy().compute_dtype)
    for _iteration in range(5):  # a quintic that, repeated, brings every value in (0, 1] near 1
        square = ops.matmul(ops.transpose(x), x)
        x = 3.4445 * x + ops.matmul(x, -4.775 * square + 2.0315 * ops.matmul(square, square))
    return ops.cast(x if rows >= columns else ops.transpose(x), matrix.dtype)
