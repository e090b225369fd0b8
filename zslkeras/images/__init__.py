"""Pictures to tensors: decoding, trained backbones, and the features that are extracted with them once."""
