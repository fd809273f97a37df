"""Windows over stored samples and the ONNX session that reads them."""
