"""Encoders of sentences for tests: a tiny random network of KerasHub, and a bag of words that knows what it reads."""

import hashlib

import numpy as np

MARKS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
WORDS = [
    "a",
    "bird",
    "animal",
    "the",
    "with",
    "red",
    "blue",
    "brown",
    "long",
    "striped",
    "wing",
    "legs",
    "café",
    "cafe",
]


def write_preset(folder, seed=0):
    """Writes a KerasHub preset of a BERT with 16 numbers a sentence, whose weights are random."""
    import keras
    import keras_hub

    keras.utils.set_random_seed(seed)
    tokenizer = keras_hub.models.BertTokenizer(vocabulary=[*MARKS, *WORDS], lowercase=True)
    backbone = keras_hub.models.BertBackbone(
        vocabulary_size=len(MARKS) + len(WORDS),
        num_layers=2,
        num_heads=2,
        hidden_dim=16,
        intermediate_dim=32,
        max_sequence_length=32,
    )
    preprocessor = keras_hub.models.BertTextEmbedderPreprocessor(tokenizer, sequence_length=32)
    keras_hub.models.BertTextEmbedder(backbone, preprocessor).save_to_preset(str(folder))
    return folder


class Bag:
    """Reads a sentence as the words in it: each word has a random direction of its own."""

    name, digest, dim = "bag", "bag of words", 64

    def encode(self, texts):
        rows = np.stack([sum(map(self._word, text.lower().split()), np.zeros(self.dim)) for text in texts])
        return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)

    def _word(self, word):
        seed = int.from_bytes(hashlib.sha256(word.strip(".,;!?").encode()).digest()[:4])
        return np.random.default_rng(seed).standard_normal(self.dim)
