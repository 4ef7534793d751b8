"""The code behind the scripts, in folders named after what they do."""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # before TensorFlow is imported; see also unet/system/quiet.py
os.environ.setdefault("KERAS_BACKEND", "tensorflow")  # whatever backend the user's Keras is set to
