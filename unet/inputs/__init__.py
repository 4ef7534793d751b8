"""What comes in: TIFF stacks, folders, the demo stack, the doctor."""
