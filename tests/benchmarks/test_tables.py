"""Tables of classes with words in them, and the class embeddings that come of them."""

import json

import numpy as np
import pytest

from tests.support.words import Bag
from zslkeras import benchmarks
from zslkeras.benchmarks import folder, tables, words
from zslkeras.errors import InputError
from zslkeras.text import descriptions, encoders

SAID = {
    "ant": "a small black animal. six legs",
    "bee": "a striped animal, with wings",
    "cat": "an animal with whiskers",
    "dog": "a loyal animal that barks",
    "elk": "a large animal with antlers",
}


@pytest.fixture(autouse=True)
def bag(monkeypatch):
    monkeypatch.setattr(encoders, "load", lambda name: Bag())


@pytest.fixture
def pets(tmp_path, draw):
    """Images of four classes, and a table that says what five are."""
    for place, name in enumerate(list(SAID)[:4]):
        (tmp_path / "pets" / name).mkdir(parents=True)
        for picture in range(3):
            draw(tmp_path / "pets" / name / f"{picture}.png", place)
    write(tmp_path / "pets/classes.csv", [("class", "description"), *SAID.items()])
    return tmp_path / "pets"


@pytest.fixture
def draw():
    from PIL import Image

    def drawn(path, place):
        Image.new("RGB", (16, 16), (50 * place, 100, 200 - 40 * place)).save(path)

    return drawn


def write(path, rows):
    path.write_text("".join("\t".join(map(str, row)) + "\n" for row in rows), encoding="utf-8")


def read(pets, **options):
    return folder.read(str(pets), None, "features", features="filters", unseen="none", **options)


def test_a_class_embedding_is_what_the_description_says(pets):
    found = read(pets, text_encoder="bag")
    np.testing.assert_allclose(found.class_embeddings, descriptions.embedded(Bag(), SAID.values()), atol=1e-6)
    assert found.attribute_names == () and found.class_names == tuple(SAID)
    told = found.words
    assert (told.encoder, told.digest, told.embedding, told.by_name) == ("bag", "bag of words", "text", False)
    assert told.said == tuple((text,) for text in SAID.values())


def test_in_stage_tune_there_is_no_word_of_an_unseen_class(pets):
    final = read(pets, text_encoder="bag")
    more = benchmarks.from_arrays(np.eye(8, 3).repeat(4, 0), np.arange(8).repeat(4), np.eye(8) + 1, unseen=[2, 5])
    said = tuple((f"class {place}",) for place in range(8))
    object.__setattr__(more, "words", words.Words("bag", "0", "text", False, said))
    tune = benchmarks.tune_stage(more)
    assert tune.words.said == tuple(said[int(name)] for name in tune.class_names)
    assert len(tune.words.said) == 6 and final.words.of([1]).said == ((SAID["bee"],),)


def test_without_descriptions_the_names_are_read(pets):
    write(pets / "classes.csv", [("class",), *((name,) for name in SAID)])
    found = read(pets, text_encoder="bag")
    wanted = Bag().encode([f"a photo of a {name}" for name in SAID])
    np.testing.assert_allclose(found.class_embeddings, wanted, atol=1e-6)
    assert found.words.by_name


def test_attributes_come_first_and_either_can_be_asked_for(pets):
    rows = [(name, place, text, 5 - place) for place, (name, text) in enumerate(SAID.items())]
    write(pets / "classes.csv", [("class", "legs", "Description", "tail"), *rows])
    (note,) = read(pets).notes
    assert note == "the descriptions of classes are not read without a text_encoder"
    found = read(pets, text_encoder="bag", normalize=False)
    np.testing.assert_array_equal(found.class_embeddings, [[place, 5 - place] for place in range(5)])
    assert found.attribute_names == ("legs", "tail") and found.words.embedding == "attributes" and not found.notes
    text = read(pets, text_encoder="bag", embedding="text")
    np.testing.assert_allclose(text.class_embeddings, descriptions.embedded(Bag(), SAID.values()), atol=1e-6)


def test_json_says_the_same(pets, tmp_path):
    content = dict(SAID) | {"ant": SAID["ant"].split(". "), "bee": {"description": SAID["bee"]}}
    (tmp_path / "pets.json").write_text(json.dumps(content))
    found = read(pets, text_encoder="bag", classes=str(tmp_path / "pets.json"))
    wanted = read(pets, text_encoder="bag").class_embeddings
    np.testing.assert_allclose(found.class_embeddings, wanted, atol=1e-6)


def test_an_attribute_may_be_called_description():
    found = tables.of_mapping("x", {"ant": {"description": 1, "legs": 6}, "bee": {"description": "striped"}})
    np.testing.assert_array_equal(found.values, [[1, 6], [np.nan, np.nan]])
    assert found.columns == ("description", "legs") and found.said == ((), ("striped",))


def test_classes_that_are_described_nearly_alike_are_named(pets):
    write(pets / "classes.csv", [("class", "description"), *(SAID | {"dog": SAID["cat"]}).items()])
    (note,) = read(pets, text_encoder="bag").notes
    assert note.startswith("cat and dog are described nearly alike (cosine 1.000 of at most 1): say what tells them")


WRONG = {
    "no encoder": ("class,description\nant,a\n", {}, "text_encoder: got none to read the descriptions of classes"),
    "names without an encoder": ("class\nant\n", {}, "text_encoder: got none to read the names of classes"),
    "empty": ("class,description\nant,an ant\nbee, \n", {}, "line 3: the description of class bee is empty"),
    "twice": ("class,description\nant,a\nant,b\n", {}, "classes.csv: class ant is there 2 times"),
    "two lines": ('class,description\n"an\nt",a\n', {}, "classes.csv: class 'an\\nt' has a line break"),
    "long": (f"class,description\nant,{'x' * 100_000}\n", {}, "has 100000 letters; wanted at most 20000"),
    "far too long": (f"class,description\nant,{'x' * 200_000}\n", {}, "cannot be read (field larger than field limit"),
    "other letters": ("class,description\nbé,é\n".encode("latin-1"), {}, "wanted a CSV or TSV in UTF-8"),
    "no attributes": ("class,description\nant,a\n", {"embedding": "attributes"}, "embedding: got attributes, and the"),
    "no embedding": ("class,description\nant,a\n", {"embedding": "neither"}, "embedding: got 'neither'; wanted one"),
    "nothing to stand beside": (
        "class,description\nant,a\n",
        {"embedding": "both"},
        "embedding: got both, and the table of classes has no attributes; wanted text",
    ),
    "JSON twice": ('{"ant": "a", "ant": "b"}', {}, "classes.json: name ant is there 2 times"),
    "JSON empty": ("{}", {}, "classes.json: holds no class; wanted a JSON object of classes"),
    "JSON no text": ('{"ant": 3}', {}, "the description of class ant is 3; wanted a text, or a list of texts"),
    "JSON cut": ('{"ant": "a', {}, "classes.json: cannot be read"),
    "JSON gap": ('{"ant": {"legs": 1}, "bee": {"tail": 2}}', {}, "tail of class ant is nan; wanted a finite number"),
    "JSON one said": ('{"ant": "a", "bee": {"legs": 1}}', {}, "legs of class ant is nan"),
}


@pytest.mark.parametrize("what", WRONG)
def test_wrong_tables_are_refused_in_a_sentence(what, tmp_path):
    content, options, sentence = WRONG[what]
    path = tmp_path / ("classes.json" if what.startswith("JSON") else "classes.csv")
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(InputError) as error:
        words.described(tables.read(path), **options)
    assert sentence in str(error.value)
