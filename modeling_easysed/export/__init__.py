"""A checkpoint's exit as one file that a device runs without PyTorch, and what the device must know besides."""
