"""Images to tensors: decoding, trained backbones, and features that backbones extract once."""
