"""Inputs and outputs of images: TIFF stacks, folders, other formats, the demo stack, the data's doctor."""
