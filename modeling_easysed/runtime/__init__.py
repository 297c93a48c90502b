"""The detector on onnxruntime: the same events as with PyTorch, without importing it."""
