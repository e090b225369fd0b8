"""Encoders of sentences, on a tiny network with random weights; a real one where ZSLKERAS_TEXT_ENCODER names it."""

import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest

from tests.support.commands import ROOT
from tests.support.words import write_preset
from zslkeras import cache
from zslkeras.errors import InputError
from zslkeras.text import encoders

TEXTS = ["a red bird", "a bird with long blue wing", "the brown animal with striped legs " * 3, "a red bird"]


@pytest.fixture(scope="module")
def preset(tmp_path_factory):
    return write_preset(tmp_path_factory.mktemp("encoder") / "tiny")


@pytest.fixture
def no_cache(monkeypatch):
    monkeypatch.setattr(cache, "of_this_code", lambda *names: None)


def by_hand(network, text, pooling="mean"):
    """The vector of a text, by the backbone and what papers say about pooling."""
    inputs = network.preprocessor([text])
    states = network.backbone(inputs)["sequence_output"].numpy()[0]
    words = states[inputs["padding_mask"].numpy()[0].astype(bool)]
    vector = {"mean": words.mean(axis=0), "max": words.max(axis=0), "cls": words[0]}[pooling]
    return vector / np.linalg.norm(vector)


def test_a_sentence_is_the_mean_of_its_tokens_at_unit_length(preset, no_cache):
    encoder = encoders.load(preset)
    got = encoder.encode(TEXTS)
    assert got.dtype == np.float32 and got.shape == (4, encoder.dim) == (4, 16)
    wanted = [by_hand(encoder.network, text) for text in TEXTS]
    np.testing.assert_allclose(got, wanted, atol=1e-5)
    assert np.abs(got[0] - got[1]).max() > 0.01  # or any constant would do
    np.testing.assert_array_equal(got[0], got[3])
    np.testing.assert_allclose(encoder.encode(TEXTS[:1] + ["a blue bird"] * 200)[0], got[0], atol=1e-6)
    np.testing.assert_array_equal(encoders.load(preset).encode(TEXTS), got)


def test_the_encoder_of_a_handle_is_told_from_others_by_what_came(preset, no_cache, monkeypatch, tmp_path):
    other, fetch = write_preset(tmp_path / "other", seed=1), encoders._embedder
    places = {"hf://tiny": str(preset), "hf://again": str(preset), "hf://other": str(other)}
    monkeypatch.setattr(encoders, "_embedder", lambda name, *_: fetch(places.get(name, name)))
    fetched = encoders.load("hf://tiny")
    np.testing.assert_allclose(fetched.encode(TEXTS), encoders.load(preset).encode(TEXTS), atol=1e-6)
    assert (fetched.name, fetched.dim) == ("hf://tiny", 16)
    assert fetched.digest == encoders.load("hf://again").digest != encoders.load("hf://other").digest


def hugging_face(preset, folder, pooling="mean_tokens", normalize=True, **tokenizer):
    """The tiny network as a folder of a sentence encoder, with its words in tokenizer.json alone."""
    from safetensors.numpy import save_file

    network = encoders.load(preset).network
    backbone = network.backbone
    folder.mkdir()
    config = {
        "model_type": "bert",
        "architectures": ["BertModel"],
        "vocab_size": backbone.vocabulary_size,
        "num_hidden_layers": 2,
    }
    config |= {"num_attention_heads": 2, "hidden_size": 16, "intermediate_size": 32, "max_position_embeddings": 32}
    vocabulary = {word: place for place, word in enumerate(network.preprocessor.tokenizer.get_vocabulary())}
    parts = ["models.Transformer", "models.Pooling"] + ["models.Normalize"] * normalize
    (folder / "1_Pooling").mkdir()
    for name, content in {
        "config.json": config,
        "tokenizer.json": {"model": {"type": "WordPiece", "vocab": vocabulary}},
        "tokenizer_config.json": {"do_lower_case": True} | tokenizer,
        "modules.json": [{"type": f"sentence_transformers.{part}"} for part in parts],
        "1_Pooling/config.json": {"word_embedding_dimension": 16, f"pooling_mode_{pooling}": True},
        "sentence_bert_config.json": {"max_seq_length": 32},
    }.items():
        (folder / name).write_text(json.dumps(content))
    save_file(dict(_weights(backbone)), folder / "model.safetensors")
    return folder


def _weights(backbone):
    def array(variable):
        return np.ascontiguousarray(variable.numpy())

    layer = backbone.get_layer
    yield "embeddings.word_embeddings.weight", array(layer("token_embedding").embeddings)
    yield "embeddings.position_embeddings.weight", array(layer("position_embedding").position_embeddings)
    yield "embeddings.token_type_embeddings.weight", array(layer("segment_embedding").embeddings)
    yield "embeddings.LayerNorm.weight", array(layer("embeddings_layer_norm").gamma)
    yield "embeddings.LayerNorm.bias", array(layer("embeddings_layer_norm").beta)
    yield "pooler.dense.weight", array(layer("pooled_dense").kernel).T.copy()
    yield "pooler.dense.bias", array(layer("pooled_dense").bias)
    for place in range(backbone.num_layers):
        block, at = layer(f"transformer_layer_{place}"), f"encoder.layer.{place}"
        attention = block._self_attention_layer
        for name, dense in {
            "attention.self.query": attention.query_dense,
            "attention.self.key": attention.key_dense,
            "attention.self.value": attention.value_dense,
            "attention.output.dense": attention.output_dense,
            "intermediate.dense": block._feedforward_intermediate_dense,
            "output.dense": block._feedforward_output_dense,
        }.items():
            kernel = array(dense.kernel)
            inner = kernel.reshape(-1, 16) if name == "attention.output.dense" else kernel.reshape(len(kernel), -1)
            yield f"{at}.{name}.weight", inner.T.copy()
            yield f"{at}.{name}.bias", array(dense.bias).reshape(-1)
        for name, norm in {
            "attention.output": block._self_attention_layer_norm,
            "output": block._feedforward_layer_norm,
        }.items():
            yield f"{at}.{name}.LayerNorm.weight", array(norm.gamma)
            yield f"{at}.{name}.LayerNorm.bias", array(norm.beta)


@pytest.mark.parametrize("pooling", ["mean_tokens", "cls_token", "max_tokens"])
def test_a_folder_of_hugging_face_is_read_by_its_own_pooling_and_left_as_it_is(preset, tmp_path, no_cache, pooling):
    folder = hugging_face(preset, tmp_path / "encoder", pooling, normalize=pooling == "mean_tokens")
    there = sorted(tmp_path.rglob("*"))
    encoder, network = encoders.load(folder), encoders.load(preset).network
    wanted = [by_hand(network, text, pooling.partition("_")[0]) for text in TEXTS]
    np.testing.assert_allclose(encoder.encode(TEXTS), wanted, atol=1e-5)
    assert sorted(tmp_path.rglob("*")) == there


def test_accents_are_stripped_where_letters_become_small(preset, tmp_path, no_cache):
    encoder = encoders.load(hugging_face(preset, tmp_path / "encoder"))
    first, second = encoder.encode(["Café", "cafe"])
    np.testing.assert_array_equal(first, second)


def test_what_is_encoded_once_is_read_from_the_cache_without_the_network(preset, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    got = encoders.load(preset).encode(TEXTS)
    monkeypatch.setattr(encoders.Encoder, "network", property(lambda self: pytest.fail("the network was loaded")))
    np.testing.assert_array_equal(encoders.load(preset).encode(TEXTS[::-1]), got[::-1])
    for kept in tmp_path.rglob("*.npy"):
        kept.write_bytes(kept.read_bytes()[:100])
    with pytest.raises(pytest.fail.Exception):
        encoders.load(preset).encode(TEXTS)


def test_the_digest_is_that_of_the_content(preset, tmp_path):
    copy = shutil.copytree(preset, tmp_path / "copy")
    assert encoders.load(copy).digest == encoders.load(preset).digest
    other = write_preset(tmp_path / "other", seed=1)
    assert encoders.load(other).digest != encoders.load(preset).digest


def folder_of(path, **contents):
    path.mkdir()
    for name, content in contents.items():
        (path / f"{name}.json").write_text(content)
    return path


WRONG = {
    "no folder": (None, "text_encoder: no folder .*; wanted one of a sentence encoder, or a handle as in hf://"),
    "empty": ({}, "is no encoder; wanted a folder with the config.json of a KerasHub preset"),
    "no JSON": ({"config": "{"}, "config.json: cannot be read"),
    "other model": ({"config": '{"model_type": "squirrel"}'}, "cannot be loaded .*squirrel.*; wanted a BERT-like"),
    "more modules": (
        {"config": '{"model_type": "bert"}', "modules": '[{"type": "x.Transformer"}, {"type": "x.Dense"}]'},
        "has a module Dense; wanted one of Transformer, Pooling, Normalize",
    ),
    "other tokens": (
        {"config": '{"model_type": "bert"}', "tokenizer": '{"model": {"type": "BPE"}}'},
        "has a tokenizer of type BPE; wanted WordPiece, or a vocab.txt",
    ),
}


@pytest.mark.parametrize("what", WRONG)
def test_a_folder_that_is_no_encoder_is_refused_in_a_sentence(what, tmp_path, no_cache):
    contents, sentence = WRONG[what]
    folder = tmp_path / "missing" if contents is None else folder_of(tmp_path / "encoder", **contents)
    with pytest.raises(InputError, match=sentence):
        encoders.load(folder).encode(["a bird"])


def test_without_the_extra_a_sentence_says_what_to_install(preset, tmp_path):
    code = (
        "import sys; sys.modules['keras_hub'] = None\n"
        "from zslkeras.text import encoders\n"
        f"try: encoders.load({str(preset)!r}).encode(['a bird'])\n"
        "except encoders.InputError as error: print(error)"
    )
    env = {**os.environ, "XDG_CACHE_HOME": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=env, capture_output=True, text=True)
    assert (
        done.stdout.strip() == "text_encoder: needs keras_hub; wanted the extra [hub], as in pip install -e '.[hub]'"
    ), done.stderr


@pytest.mark.skipif("ZSLKERAS_TEXT_ENCODER" not in os.environ, reason="ZSLKERAS_TEXT_ENCODER names no encoder")
def test_a_real_encoder_knows_what_words_mean():
    bird, parrot, truck = encoders.load(os.environ["ZSLKERAS_TEXT_ENCODER"]).encode(
        ["a bird with a red beak", "a parrot with a crimson bill", "a truck on a road"]
    )
    assert bird @ parrot > 0.4 > 0.3 > bird @ truck
