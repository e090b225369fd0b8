"""Descriptions of classes: sentences, prompts and what is refused."""

import numpy as np
import pytest

from tests.support.words import Bag
from zslkeras.errors import InputError
from zslkeras.text import descriptions


def test_a_text_is_read_sentence_by_sentence():
    assert descriptions.sentences("It is brown. Its legs, 1.5 m long, are striped!\n\nA shy animal") == [
        "It is brown.",
        "Its legs, 1.5 m long, are striped!",
        "A shy animal",
    ]
    assert descriptions.sentences(["One. Two.", "Three"]) == ["One.", "Two.", "Three"]


def test_no_word_of_a_long_sentence_is_lost():
    text = " ".join(f"word{place}" for place in range(200))
    assert " ".join(descriptions.sentences(text)) == text
    assert max(len(part.split()) for part in descriptions.sentences(text)) <= 60


def test_a_class_is_the_mean_of_its_sentences():
    bag = Bag()
    (got,) = descriptions.embedded(bag, ["a red bird. a blue tail"])
    wanted = bag.encode(["a red bird.", "a blue tail"]).sum(axis=0)
    np.testing.assert_allclose(got, wanted / np.linalg.norm(wanted), rtol=1e-5)
    np.testing.assert_array_equal(descriptions.embedded(bag, [("a red bird.", "a blue tail")])[0], got)


def test_a_name_is_read_in_each_prompt():
    got = descriptions.of_names(["001.Black_footed-Albatross", "gnu"], ("a photo of a {}", "the {}"))
    assert got[0] == ("a photo of a Black footed Albatross", "the Black footed Albatross")
    assert got[1] == ("a photo of a gnu", "the gnu")
    assert descriptions.spoken("42") == "42"


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ("", "the description of class okapi is empty; wanted at least a word"),
        (["striped", " "], "is empty"),
        ([], "is empty"),
        (3, "is 3; wanted a text, or a list of texts"),
        ("x" * 100_000, "has 100000 letters; wanted at most 20000"),
    ],
)
def test_what_is_no_description_is_refused(given, sentence):
    with pytest.raises(InputError, match=sentence):
        descriptions.checked("words.csv", "okapi", given)
