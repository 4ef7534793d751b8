"""What the scripts at the top stand on, in rooms named after what they do."""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # before TensorFlow comes in; see unet/quiet.py, too
os.environ.setdefault("KERAS_BACKEND", "tensorflow")  # whatever else the user's Keras is set to
