"""The feed, what a run leaves on disk, the optimizer, encoders."""
