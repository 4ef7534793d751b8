"""Train on a batch in parts, one after the other if it does not fit into memory, or on several devices."""

from __future__ import annotations

from collections.abc import Iterator

import keras
import tensorflow as tf

from unet.training.affinities import affinity_loss
from unet.training.strategy import several_processes


class InParts(keras.Model):
    """A network that trains on a batch in `parts`, whose gradients are added up before the one step.

    Loss and step are those of the whole batch, to float error; so nothing else in a run changes: its steps, its rates,
    its checkpoints. (Keras's own `gradient_accumulation_steps` would change the schedule's steps and the optimizer's
    variables in the middle of a run.) Dropout draws, and batch normalisation takes its mean, within each part.

    On several devices each takes its share of the batch, in as many parts, and all add up their gradients before they
    are clipped, or checked for values that float16 cannot hold.
    """

    parts = 1
    affinities = 0.0  # weight of their loss beside the main loss; if above 0, the second output is that of `affinities`

    def halve(self) -> None:
        """Take twice as many parts from the next `fit` on."""
        self.parts *= 2
        self.train_function = None  # so that Keras makes it again

    def _maybe_symbolic_build(self, iterator=None, data_batch=None) -> None:
        """Do nothing: the network is built, and Keras would use up a batch for it if there are several devices."""

    def train_step(self, data):
        devices = self.distribute_strategy.num_replicas_in_sync  # each contributes its share of the mean loss
        if self.parts == devices == 1 and not self.affinities:
            return super().train_step(data)
        arrays = keras.utils.unpack_x_y_sample_weight(data)
        total, sums = 0.0, []
        for share, part in self._split(arrays):
            with tf.control_dependencies(sums):  # or all parts would be in memory at once
                loss, gradients = self._gradients(*part, share=share)
                total += loss
                sums = [tf.add(*pair) for pair in zip(sums, gradients, strict=True)] if sums else gradients
        sums = tf.distribute.get_replica_context().all_reduce("sum", sums)  # over all devices
        self.optimizer.apply_gradients(zip(sums, self.trainable_weights, strict=True))
        self.metrics[0].update_state(total * devices, sample_weight=tf.shape(arrays[0])[0])  # as Keras weights it
        return self._logs(self.get_metrics_result())

    def _split(self, arrays: tuple) -> Iterator[tuple[float, list]]:
        """Iterate over the parts of arrays (n, ...): (share of n, part). If there is one part, n may be unknown."""
        if self.parts == 1:
            yield 1.0, arrays
            return
        count = arrays[0].shape[0]
        size = -(-count // self.parts)
        for first in range(0, count, size):
            yield (min(size, count - first) / count,
                   [None if array is None else array[first:first + size] for array in arrays])

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        """Return the loss of the first output only; labels whose cells are numbered become 1 = cell for it."""
        if self.affinities:
            y, y_pred = keras.ops.cast(y > 0, "float32"), keras.tree.flatten(y_pred)[0]
        return super().compute_loss(x, y, y_pred, sample_weight, training)

    def test_step(self, data):
        return self._logs(super().test_step(data))

    def _logs(self, logs: dict) -> dict:
        """Return a step's logs, with an axis over which Keras can average if there are several processes."""
        if several_processes(self.distribute_strategy):
            return {name: tf.reshape(value, (1,)) for name, value in logs.items()}
        return logs

    def _gradients(self, images, labels, weights, share: float) -> tuple:
        """Return a part's loss, multiplied by its share of the batch, and its gradients."""
        with tf.GradientTape() as tape:
            outputs = self(images, training=True)
            loss = share * self.compute_loss(images, labels, outputs, weights, training=True)
            auxiliary = share * self.affinities * affinity_loss(labels, outputs[1]) if self.affinities else 0.0
            total = self.optimizer.scale_loss(loss + auxiliary)  # for float16
        return loss, tape.gradient(total, self.trainable_weights)
