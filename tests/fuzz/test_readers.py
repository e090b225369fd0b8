"""Whatever bytes a file or a request has, it is read, or refused in one sentence.

ZSLKERAS_FUZZ is how many cases each property is tried with; `make fuzz` takes ten thousand.
"""

import io
import json
import os

import hypothesis
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import strategies as st

from tests.benchmarks.test_xlsa import fields, write_v5, write_v73
from tests.images.test_decode import drawn, encoded
from zslkeras import atomic
from zslkeras.benchmarks import files, tables
from zslkeras.errors import InputError
from zslkeras.images import decode, prepared
from zslkeras.serving import recognise

CASES = int(os.environ.get("ZSLKERAS_FUZZ", "60"))
settings = hypothesis.settings(
    max_examples=CASES,
    deadline=None,
    derandomize="ZSLKERAS_FUZZ" not in os.environ,
    suppress_health_check=list(hypothesis.HealthCheck),
    database=None,
)
TABLE = b'class,striped,round\nzebra,1,0.5\n"ball, red",0,1\n'


def edits(content):
    """The content with some bytes changed, left out, put in, or said twice."""
    place, size = st.integers(0, len(content)), st.integers(0, 64)
    edit = st.tuples(
        st.sampled_from(["change", "cut", "leave out", "put in", "twice"]), place, size, st.binary(max_size=16)
    )

    def made(several):
        edited = content
        for kind, start, length, more in several:
            part = edited[start : start + length]
            edited = {
                "change": edited[:start] + more + edited[start + len(more) :],
                "cut": edited[:start],
                "leave out": edited[:start] + edited[start + length :],
                "put in": edited[:start] + more + edited[start:],
                "twice": edited[:start] + part + edited[start:],
            }[kind]
        return edited

    return st.lists(edit, min_size=1, max_size=4).map(made)


def assert_read_or_refused(read, *given):
    try:
        return read(*given)
    except InputError as error:
        assert "\n" not in str(error) and len(str(error)) < 1200
        return None


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("fuzz")


def written(place, name, content):
    path = place / name
    path.write_bytes(content)
    return path


def mats():
    folder = io.BytesIO()
    np.save(folder, np.ones((3, 4), np.float32))
    return folder.getvalue()


@pytest.mark.parametrize("writer", [write_v5, write_v73])
def test_matlab_files(place, writer):
    writer(place / "whole.mat", fields()["res101"])
    whole = (place / "whole.mat").read_bytes()

    @settings
    @hypothesis.given(edits(whole) | st.binary(max_size=300))
    def read(content):
        path = written(place, "a.mat", content)
        assert_read_or_refused(files.read_mat, path, ["features", "labels"], ["image_files"])

    read()


def test_arrays(place):
    @settings
    @hypothesis.given(edits(mats()) | st.binary(max_size=300))
    def read(content):
        assert_read_or_refused(files.read_matrix, written(place, "a.npy", content))

    read()


@pytest.mark.parametrize("name", ["classes.csv", "classes.json"])
def test_tables_of_classes(place, name):
    whole = (
        TABLE if name.endswith("csv") else json.dumps({"zebra": {"striped": 1, "description": "an animal"}}).encode()
    )

    @settings
    @hypothesis.given(edits(whole) | st.binary(max_size=300) | st.text(max_size=200).map(lambda text: text.encode()))
    def read(content):
        assert_read_or_refused(tables.read, written(place, name, content), True)

    read()


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


def changed(content):
    """An object with one of its values, at any depth, replaced by any other JSON."""

    def places(value, way=()):
        yield way
        items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
        for key, inner in items:
            yield from places(inner, (*way, key))

    def replaced(asked):
        way, new = asked
        copy = json.loads(json.dumps(content))
        if not way:
            return new
        inner = copy
        for key in way[:-1]:
            inner = inner[key]
        inner[way[-1]] = new
        return copy

    return st.tuples(st.sampled_from([*places(content)]), VALUES).map(replaced)


def test_records_of_features(place):
    record = {"backbone": "small", "size": 32, "layers": ["a", "b"], "finite": True, "pooling": ["mean"]}

    @settings
    @hypothesis.given(changed(record) | VALUES)
    def read(content):
        path = written(place, "a.json", json.dumps(content).encode())
        assert_read_or_refused(prepared.read, path)
        assert_read_or_refused(atomic.read_json, path)

    read()


def test_metadata_of_exports(place, exported):
    whole = json.loads((exported.saved_model / "metadata.json").read_text())
    (place / "class_embeddings.npy").write_bytes((exported.saved_model / "class_embeddings.npy").read_bytes())

    @settings
    @hypothesis.given(changed(whole))
    def read(content):
        written(place, "metadata.json", json.dumps(content).encode())
        assert_read_or_refused(recognise.Exported, place)

    read()


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "TIFF", "WEBP", "BMP"])
def test_images(place, kind):
    whole = encoded(drawn(24, 31), kind)

    @settings
    @hypothesis.given(edits(whole) | st.binary(max_size=200))
    def read(content):
        (answer,) = decode.stream([written(place, "a.image", content)], 8)
        if isinstance(answer, InputError):
            assert "\n" not in str(answer) and "a.image" in str(answer)
        else:
            assert answer.shape == (8, 8, 3)

    read()


class Model:
    """A served model with an endpoint of each kind of input."""

    def __init__(self):
        specs = {
            "serving_default": {"inputs": tf.TensorSpec([None], tf.string)},
            "score_classes": {
                "inputs": tf.TensorSpec([None, 3], tf.float32),
                "class_embeddings": tf.TensorSpec([None, None], tf.float32),
                "seen_mask": tf.TensorSpec([None], tf.bool),
            },
        }
        self.signatures = {name: Endpoint(one) for name, one in specs.items()}


class Endpoint:
    def __init__(self, specs):
        self.structured_input_signature = (), specs

    def __call__(self, **given):
        return {"scores": tf.zeros([max(len(one) for one in given.values()), 2])}


def test_requests():
    rest = pytest.importorskip("zslkeras.serving.rest", reason="needs the extra [serve]")
    good = {
        "signature_name": "score_classes",
        "inputs": {"inputs": [[0.0, 1.0, 2.0]], "class_embeddings": [[1.0, 2.0]], "seen_mask": [True]},
    }
    images = {"instances": [{"b64": "aGFsbG8="}, "text"]}
    whole = json.dumps(good).encode()
    bodies = edits(whole) | st.binary(max_size=200) | (changed(good) | changed(images)).map(json.dumps).map(str.encode)

    @settings
    @hypothesis.given(bodies)
    def ask(body):
        try:
            assert set(json.loads(rest.answered(Model(), body, rest.Limits()))) <= {"predictions", "outputs"}
        except rest.Refused as refusal:
            assert refusal.status in (400, 429) and "\n" not in str(refusal) and len(str(refusal)) < 600

    ask()
