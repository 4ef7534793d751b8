"""What is prepared for graphics cards, as far as a processor can tell."""

from dataclasses import replace

import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorflow.python.framework import kernels

from model import PRESETS, build_unet
from unet.training import device
from unet.training.device import PRECISIONS, prepare_device, ran_out_of_memory
from unet.training.optimizer import compile_model, orthogonal
from unet.training.pace import Pace
from unet.training.parts import InParts

# of the executor itself, or whose kernels run wherever their inputs are
EVERYWHERE = {"ConcatOffset", "Const", "IdentityN", "If", "NoOp", "Placeholder", "ReadVariableOp", "StatelessIf"}


@pytest.fixture
def policy():
    """Set an arithmetic for one test."""
    before = keras.config.dtype_policy()
    yield lambda name: keras.config.set_dtype_policy(PRECISIONS[name])
    keras.config.set_dtype_policy(before)


def tiny(name="cpu"):
    recipe = PRESETS[name]
    recipe = replace(recipe, network=replace(recipe.network, filters=8, depth=2, dropout=(0, 0.2, 0.2)))
    network = build_unet(recipe.network)
    model = InParts(network.input, network.output)
    compile_model(model, recipe)
    model.optimizer.build(model.trainable_variables)
    return model


def operations(function):
    """Each operation of a traced function, and those that it calls, with the type that it works on."""
    graph = function.graph.as_graph_def()
    for node in (*graph.node, *(node for inner in graph.library.function for node in inner.node_def)):
        kind = next((node.attr[name].type for name in ("T", "dtype") if name in node.attr), 0)
        yield node.op, kind


def has_kernel(operation, kind):
    """Whether TensorFlow has a kernel for GPUs that takes this type."""
    return any(all(kind in rule.allowed_values.list.type for rule in kernel.constraint if rule.name in ("T", "dtype"))
               for kernel in kernels.get_registered_kernels_for_op(operation).kernel if kernel.device_type == "GPU")


@pytest.mark.skipif(not tf.sysconfig.get_build_info().get("is_cuda_build"), reason="a TensorFlow without GPU kernels")
@pytest.mark.parametrize("precision", PRECISIONS)
def test_every_operation_of_a_step_has_a_kernel_for_cards(policy, precision):
    policy(precision)
    model = tiny()
    tiles = tf.TensorSpec((4, 32, 32, 1), tf.float32)
    step = tf.function(lambda *batch: model.train_step(batch)).get_concrete_function(tiles, tiles)
    found = set(operations(step))
    assert len(found) > 50
    assert {one for one in found if one[0] not in EVERYWHERE and not has_kernel(*one)} == set()


def test_nothing_is_compiled_for_each_shape_anew(monkeypatch):
    """Keras would, where a device is no processor."""
    devices = [tf.config.PhysicalDevice("/physical_device:GPU:0", "GPU")]
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind=None: devices)
    model = tiny()
    assert model.jit_compile is False
    model.compile(loss="mse")
    assert model.jit_compile is True  # what Keras does by itself


@pytest.mark.parametrize("scale", [1e-7, 1.0, 1e4])
def test_muons_iterations_hold_in_float16(policy, rng, scale):
    policy("float16")
    matrix = scale * rng.normal(size=(288, 32)).astype(np.float32)
    values = np.linalg.svd(keras.ops.convert_to_numpy(orthogonal(matrix)), compute_uv=False)
    assert values.min() > 0.6
    assert values.max() < 1.3
    assert not keras.ops.convert_to_numpy(orthogonal(np.zeros((288, 32), np.float32))).any()


def test_a_step_that_float16_cannot_hold_is_left_out_and_the_next_ones_are_not(policy, rng):
    policy("float16")
    model = tiny()
    model.run_eagerly = True  # to trace Muon's steps takes longer than they do
    before = model.get_weights()
    images = rng.integers(0, 256, (2, 32, 32, 1)).astype(np.float32)
    labels = (images > 128).astype(np.float32)
    model.train_on_batch(images, labels, np.full((2, 32, 32), 1e6, np.float32))
    for one, other in zip(before, model.get_weights(), strict=True):
        if one.dtype == np.float32:  # not the states of dropout
            np.testing.assert_array_equal(one, other)
    assert float(model.optimizer.dynamic_scale) == 2**14
    for _step in range(3):
        model.train_on_batch(images, labels)
    assert not all((one == other).all() for one, other in zip(before, model.get_weights(), strict=True))
    assert all(np.isfinite(array).all() for array in model.get_weights())


@pytest.mark.parametrize(("error", "expected"), [
    (tf.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor"), True),
    (tf.errors.InternalError(None, None, "CUDA_ERROR_OUT_OF_MEMORY"), True),
    (tf.errors.InternalError(None, None, "Failed to allocate 96 bytes for new constant"), True),
    (tf.errors.InternalError(None, None, "cuDNN: CUDNN_STATUS_ALLOC_FAILED"), True),
    (tf.errors.NotFoundError(None, None, "No algorithm worked! Error messages:"), True),
    (RuntimeError("std::bad_alloc"), True), (RuntimeError("could not allocate"), True), (MemoryError(), True),
    (tf.errors.InternalError(None, None, "libdevice not found"), False), (ValueError("shapes"), False)])
def test_cards_and_engines_say_in_many_ways_that_memory_ran_out(error, expected):
    assert ran_out_of_memory(error) is expected


def test_a_card_that_tensorflow_does_not_see_is_said(tmp_path, monkeypatch, policy):
    assert prepare_device("float32").startswith("no GPU found, ")
    (tmp_path / "nvidia0").touch()
    monkeypatch.setattr(device, "CARD", tmp_path / "nvidia0")
    assert prepare_device("float32").startswith("no GPU found though there is an NVIDIA card (see docs/gpu.md), ")


def test_a_card_whose_memory_nobody_counts_stops_no_run(monkeypatch):
    def unknown(name):
        raise ValueError(f"Allocator stats not available for device '{name}'")

    cards = [tf.config.LogicalDevice(f"/device:GPU:{number}", "GPU") for number in (0, 1)]
    monkeypatch.setattr(tf.config, "list_logical_devices", lambda kind=None: cards)
    monkeypatch.setattr(tf.config.experimental, "get_memory_info", unknown)
    pace = Pace(None, 30)
    pace.ahead = [0] * 10
    assert "GPU" not in pace.describe(1.0)
    monkeypatch.setattr(tf.config.experimental, "get_memory_info", lambda name: {"peak": int(name[-1]) * 10**9})
    assert "0.0 GB of GPU:0, 1.0 GB of GPU:1; " in pace.describe(1.0)
