"""Encoders of sentences: networks of KerasHub, with what they have encoded kept in the cache.

An encoder has a `name`, a `digest` of all that its vectors depend on, a `dim`, and `encode(texts)`, which gives
[N, dim] float32 rows of unit length. Its network is loaded when a text is not in the cache, so that nothing waits for
KerasHub (8 seconds to import) where everything is known.
"""

import contextlib
import functools
import hashlib
import json
import os
import pathlib
import tempfile

import numpy as np

from zslkeras import atomic, cache
from zslkeras.errors import InputError, brief, did_you_mean
from zslkeras.progress import Progress

LENGTHS = (16, 32, 64, 128, 256, 512)  # of padded sentences: each one gets the shortest that holds it
_TOKENS_AT_ONCE = 1024  # in a batch, whatever its length
_MANY = 64  # texts, from which on there is a progress line
_EXTRA = "text_encoder: needs {}; wanted the extra [hub], as in pip install -e '.[hub]'"
_READ = (".json", ".txt", ".safetensors", ".h5", ".model")  # suffixes of the files that an encoder depends on
_PARTS = ("Transformer", "Pooling", "Normalize")  # of a sentence encoder's modules.json
_POOLINGS = tuple(f"pooling_mode_{one}" for one in ("mean_tokens", "cls_token", "max_tokens"))
_WORDPIECE, _VOCABULARY = "tokenizer.json", "vocab.txt"


def load(name):
    """The encoder in a folder, or that of a handle.

    Args:
        name: a folder, of a KerasHub preset or of a BERT-like sentence encoder as Hugging Face has it; or a handle of
            KerasHub, such as hf://sentence-transformers/all-MiniLM-L6-v2, which it fetches.
    """
    if "://" in os.fspath(name):
        return _opened(Fetched, os.fspath(name))
    folder = pathlib.Path(name)
    if not folder.is_dir():
        raise InputError(f"text_encoder: no folder {folder}; wanted one of a sentence encoder, or a handle as in hf://")
    return _opened(Encoder, folder.resolve())


@functools.lru_cache(maxsize=2)
def _opened(kind, place):
    """An encoder that is opened once: a process that asks again need not load its network again."""
    return kind(place)


class Encoder:
    """The encoder in a folder."""

    def __init__(self, folder):
        self.folder, self.name = folder, str(folder)
        config = atomic.read_json(folder / "config.json")
        if not config.keys() & {"registered_name", "model_type"}:
            wanted = "config.json of a KerasHub preset or of a Hugging Face model"
            raise InputError(f"text_encoder: {folder} is no encoder; wanted a folder with the {wanted}")
        self._is_preset = "registered_name" in config
        if not self._is_preset:
            _require_readable(folder)

    @functools.cached_property
    def digest(self):
        """Of the content of its files, wherever they lie."""
        hasher = hashlib.sha256()
        for path in sorted(self.folder.rglob("*")):
            # The metadata of a preset have the time at which it was saved.
            if path.is_file() and path.suffix in _READ and path.name != "metadata.json":
                with open(path, "rb") as stream:
                    content = hashlib.file_digest(stream, "sha256").hexdigest()
                hasher.update(f"{path.relative_to(self.folder).as_posix()} {content}\n".encode())
        return hasher.hexdigest()[:16]

    @property
    def dim(self):
        """The length of its vectors."""
        return self.network.output_shape[-1]

    @functools.cached_property
    def network(self):
        """The network: a TextEmbedder of KerasHub."""
        if self._is_preset:
            return _embedder(self.name)
        with _with_vocabulary(self.folder) as folder:
            return _like_hugging_face(_embedder(str(folder), self.name))

    @functools.cached_property
    def _graph(self):
        from zslkeras import graphs  # here, as `digest` and what is in the cache do not need TensorFlow

        return graphs.function(lambda inputs: self.network(inputs, training=False))

    def encode(self, texts):
        """[N, dim] float32 rows of unit length. The same text has the same row, whatever stands beside it."""
        wanted = dict.fromkeys(texts)
        kept = cache.of_this_code("texts", self.digest)
        for text in wanted:
            wanted[text] = _read(kept, text)
        if lacking := [text for text, vector in wanted.items() if vector is None]:
            for text, vector in zip(lacking, _encoded(self.network, self._graph, lacking), strict=True):
                wanted[text] = vector
                _keep(kept, text, vector)
        return np.stack([wanted[text] for text in texts])


class Fetched(Encoder):
    """The encoder of a handle, which KerasHub fetches; its digest is that of what came."""

    def __init__(self, handle):
        self.name = handle

    @functools.cached_property
    def network(self):
        network = _embedder(self.name)
        return _like_hugging_face(network) if self.name.startswith("hf://") else network

    @functools.cached_property
    def digest(self):
        network = self.network
        facts = network.get_config(), network.preprocessor.tokenizer.get_vocabulary()
        hasher = hashlib.sha256(json.dumps(facts, default=str, sort_keys=True).encode())
        for weights in network.get_weights():
            hasher.update(np.ascontiguousarray(weights))
        return hasher.hexdigest()[:16]


def _embedder(preset, name=None):
    """The network of a folder or a handle; `name` is what the user called it."""
    try:
        import keras_hub
    except ImportError as error:  # a wrong version of tensorflow-text is found by loading it
        raise InputError(_EXTRA.format(error.name or f"KerasHub ({brief(error)})")) from None
    try:
        # In float32 whatever models compute in, so that a text has one vector.
        return keras_hub.models.TextEmbedder.from_preset(preset, dtype="float32")
    except ImportError as error:
        raise InputError(_EXTRA.format(error.name)) from None
    except Exception as error:  # KerasHub raises anything on a folder that it cannot read, and without a network
        got = f"{name or preset} cannot be loaded ({brief(error)})"
        wanted = "the handle of one, and a network" if "://" in preset else "the folder of one"
        raise InputError(f"text_encoder: {got}; wanted a BERT-like encoder that KerasHub reads, {wanted}") from None


def _like_hugging_face(network):
    """With accents stripped where letters become small, which the tokenizers of these models do unless told not to."""
    tokenizer = network.preprocessor.tokenizer
    tokenizer.strip_accents = getattr(tokenizer, "lowercase", False)
    return network


@contextlib.contextmanager
def _with_vocabulary(folder):
    """The folder, or a private one that has a vocab.txt besides, made of tokenizer.json."""
    if (folder / _VOCABULARY).is_file() or not (folder / _WORDPIECE).is_file():
        yield folder
        return
    model = atomic.read_json(folder / _WORDPIECE, {"model": {"type?": str, "vocab?": dict}})["model"]
    if model.get("type") != "WordPiece":
        got = f"{folder / _WORDPIECE} has a tokenizer of type {model.get('type')}"
        raise InputError(f"text_encoder: {got}; wanted WordPiece, or a {_VOCABULARY}")
    words = sorted(model["vocab"], key=model["vocab"].get)
    with tempfile.TemporaryDirectory() as private:
        private = pathlib.Path(private)
        for path in folder.iterdir():
            (private / path.name).symlink_to(path)
        (private / _VOCABULARY).write_text("\n".join([*words, ""]), encoding="utf-8")
        yield private


def _require_readable(folder):
    """Refuses a sentence encoder whose vectors would not be its own here."""
    modules = folder / "modules.json"
    if not modules.is_file():
        return
    try:
        parts = [one["type"].rpartition(".")[2] for one in json.loads(modules.read_text(encoding="utf-8"))]
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise InputError(f"text_encoder: {modules} cannot be read ({brief(error)}); wanted its modules") from None
    for part in parts:
        if part not in _PARTS:
            raise InputError(f"text_encoder: {modules} has a module {part}; {did_you_mean(part, _PARTS)}")
    pooling = atomic.read_json(folder / "1_Pooling" / "config.json")
    modes = [name for name, on in pooling.items() if name.startswith("pooling_mode_") and on]
    if modes and (len(modes) > 1 or modes[0] not in _POOLINGS):
        got = f"{folder / '1_Pooling'} pools by {' and '.join(modes)}"
        raise InputError(f"text_encoder: {got}; wanted one of {', '.join(_POOLINGS)}")


def _encoded(network, asked, texts):
    """The vectors of texts that are not in the cache.

    Batches have fixed shapes, a shape for each length, so that a text's vector does not depend on how many others
    there are.
    """
    preprocessor, most = network.preprocessor, network.preprocessor.sequence_length
    longest = min(most, getattr(network.backbone, "max_sequence_length", most))
    lengths = [length for length in LENGTHS if length < longest] + [longest]
    tokens = np.array([len(one) for one in preprocessor.tokenizer(texts)]) + 2  # with the marks of both ends
    places = np.minimum(np.searchsorted(lengths, tokens), len(lengths) - 1)
    vectors = None
    progress = Progress("reading descriptions", len(texts)) if len(texts) >= _MANY else contextlib.nullcontext()
    with progress as bar:
        for place in np.unique(places):
            rows, size = np.flatnonzero(places == place), max(1, _TOKENS_AT_ONCE // lengths[place])
            preprocessor.sequence_length = lengths[place]
            for start in range(0, len(rows), size):
                part = rows[start : start + size]
                batch = [texts[row] for row in part] + [""] * (size - len(part))
                found = asked(preprocessor(batch)).numpy()[: len(part)].astype(np.float32)
                vectors = np.zeros((len(texts), found.shape[1]), np.float32) if vectors is None else vectors
                vectors[part] = found
                if bar:
                    bar.advance(len(part))
    preprocessor.sequence_length = most
    return unit(vectors)


def unit(vectors):
    """Rows of unit length."""
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), np.finfo(np.float32).tiny)


def _read(folder, text):
    if folder is None or not _file(folder, text).is_file():
        return None
    try:
        return np.load(_file(folder, text), allow_pickle=False)
    except (OSError, ValueError, EOFError):  # damaged: it is made again
        return None


def _keep(folder, text, vector):
    if folder is not None:
        with atomic.replacing(_file(folder, text)) as draft, open(draft, "wb") as stream:
            np.save(stream, vector, allow_pickle=False)


def _file(folder, text):
    return folder / f"{hashlib.sha256(text.encode()).hexdigest()[:32]}.npy"
