"""Set up what a network runs on: GPUs or processor cores, and the arithmetic that is fast on them."""

from __future__ import annotations

import os
from pathlib import Path

from unet.system.quiet import import_quietly
from utils import count_of

CARD = Path("/dev/nvidia0")  # the first card, if NVIDIA's driver is there, on Linux
NO_MEMORY = ("bad_alloc", "failed to allocate", "out of memory", "out_of_memory", "alloc_failed",
             "no algorithm worked")  # the last is cuDNN's, if no memory is left for its work
PRECISIONS = {"bfloat16": "mixed_bfloat16", "float16": "mixed_float16", "float32": "float32"}


def prepare_device(precision: str = "auto") -> str:
    """Set Keras up for the machine: GPU memory that grows as needed, and the arithmetic; return a description.

    'auto' is bfloat16 if the processor or GPU computes it, float16 on older GPUs with tensor cores, otherwise float32.
    """
    import_quietly()
    import keras
    import tensorflow as tf

    tf.get_logger().setLevel("ERROR")  # no warnings about retracing: there are several networks, or image sizes
    gpus = tf.config.list_physical_devices("GPU")
    for gpu in gpus:
        if not tf.config.experimental.get_memory_growth(gpu):
            tf.config.experimental.set_memory_growth(gpu, True)
    if precision == "auto" and gpus:
        details = [tf.config.experimental.get_device_details(gpu) for gpu in gpus]
        capability = min(one.get("compute_capability", (0, 0)) for one in details)
        precision = "bfloat16" if capability >= (8, 0) else "float16" if capability >= (7, 0) else "float32"
    elif precision == "auto":
        precision = cpu_precision()
    keras.mixed_precision.set_global_policy(PRECISIONS[precision])
    if gpus:
        return f"{count_of(len(gpus), 'GPU')}, {precision}"
    card = " though there is an NVIDIA card (see docs/gpu.md)" if CARD.exists() else ""
    return f"no GPU found{card}, {os.cpu_count()} CPU cores, {precision}"


def cpu_precision() -> str:
    """Return the fastest arithmetic: 'bfloat16' if the processor has instructions for it, otherwise 'float32'."""
    flags = Path("/proc/cpuinfo")  # Linux only; elsewhere float32 is safe
    text = flags.read_text() if flags.is_file() else ""
    return "bfloat16" if "avx512_bf16" in text or "amx_bf16" in text else "float32"


def ran_out_of_memory(error: Exception) -> bool:
    """Tell whether this error of a network means that memory ran out; each engine has an error of its own."""
    words = str(error).lower()
    return (isinstance(error, MemoryError) or type(error).__name__ == "ResourceExhaustedError"
            or (isinstance(error, RuntimeError) and "allocat" in words) or any(word in words for word in NO_MEMORY))
