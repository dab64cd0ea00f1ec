"""Model files that strangers send: each kind is read, checked and turned into ONNX, in a locked-down process."""
