"""Classes in words: a model of text embeddings, and one of attributes, are asked with a sentence."""

import json
import warnings

import numpy as np
import pytest

import zslkeras
from tests.support.exported import draw
from tests.support.words import Bag
from zslkeras.benchmarks import words
from zslkeras.cli import predict
from zslkeras.errors import InputError
from zslkeras.serving import candidates
from zslkeras.serving import words as serving_words
from zslkeras.text import descriptions, encoders
from zslkeras.text.attributes import FromWords

FEW = {"scalings": ("standard",), "gammas": (10.0,), "lambdas": (1.0,)}
OKAPI = {"okapi": "a blue striped circle. it is large"}


class Other(Bag):
    name, digest = "other", "another"


@pytest.fixture(autouse=True)
def encoder_by_name(monkeypatch):
    monkeypatch.setattr(encoders, "load", lambda name: {"bag": Bag, "other": Other}[str(name)]())


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return draw(tmp_path_factory.mktemp("drawn") / "pictures")


@pytest.fixture(scope="module")
def fitted(folder):
    """A classifier for each way of embedding classes, trained once."""
    made = {}

    def fit(embedding, text_encoder="bag"):
        if (embedding, text_encoder) not in made:
            options = {"features": "filters", "unseen": 0.2, "text_encoder": text_encoder, "embedding": embedding}
            options |= {"text_weight": 0.25} if embedding == "both" else {}
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(encoders, "load", lambda name: Bag())
                made[embedding, text_encoder] = zslkeras.fit(
                    folder, "eszsl", settings=FEW, say=lambda line: None, **options
                )
        return made[embedding, text_encoder]

    return fit


@pytest.fixture
def rows(fitted):
    """Features of three images."""
    return fitted("text")._inside.benchmark.inputs[:3]


def test_a_model_of_texts_is_asked_with_a_text(fitted, rows):
    model = fitted("text")
    assert model.class_embeddings.shape == (20, Bag.dim)
    row = descriptions.embedded(Bag(), OKAPI.values())
    got = model.score(rows, OKAPI, known=True)
    np.testing.assert_allclose(got.values, model.score(rows, (["okapi"], row), known=True).values, rtol=1e-5)
    assert got.names[-1] == "okapi" and set(model.predict(rows, OKAPI)) == {"okapi"}


def test_a_model_of_names_is_asked_with_names(fitted, rows, tmp_path):
    names = ["red-striped-circle", "a-new-one"]
    wanted = fitted("text").score(
        rows, dict(zip(names, ["a photo of a red striped circle", "a photo of a a new one"], strict=True))
    )
    got = fitted("text").score(rows, names)
    np.testing.assert_array_equal(got.values, wanted.values)
    (tmp_path / "names.csv").write_text("class\n" + "\n".join(names) + "\n")
    np.testing.assert_array_equal(fitted("text").score(rows, tmp_path / "names.csv").values, wanted.values)
    with pytest.raises(InputError, match="classes: 'a-new-one' is given by its name alone, and the model does not"):
        fitted("attributes").predict(rows, ["a-new-one"])


def test_a_model_of_attributes_gets_those_that_the_words_suggest(fitted, rows):
    model = fitted("attributes")
    with pytest.warns(UserWarning, match="classes: the attributes of okapi follow from what is said, by what is known"):
        got = model.score(rows, OKAPI)
    kinds = descriptions.of_known(model.class_names, model.attribute_names, model.class_embeddings)
    told = FromWords([descriptions.embedded(Bag(), kind) for kind in kinds], model.class_embeddings)
    row = told(descriptions.embedded(Bag(), OKAPI.values()))
    beyond = dict(zip(model.attribute_names, row[0] - model.class_embeddings.mean(axis=0), strict=True))
    assert beyond["blue"] > 0 > beyond["green"] and beyond["striped"] > 0 > beyond["plain"]
    values = dict(zip(model.attribute_names, row[0], strict=True))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        np.testing.assert_allclose(got.values, model.score(rows, {"okapi": values}).values, rtol=1e-4, atol=1e-5)


def test_what_is_given_beside_the_words_counts_more(fitted, rows):
    model = fitted("attributes")
    own = dict(zip(model.attribute_names, model.class_embeddings[3], strict=True))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        whole = model.score(rows, {"okapi": own}).values
        both = model.score(rows, {"okapi": own | {"description": "a red striped circle"}}).values
        words_alone = model.score(rows, {"okapi": "a red striped circle"}).values
    np.testing.assert_allclose(both, whole, rtol=1e-5)
    assert np.abs(words_alone - whole).max() > 1e-3


def test_a_model_of_attributes_without_an_encoder_takes_one_later(fitted, rows):
    model = fitted("attributes", None)
    with pytest.raises(InputError, match="text_encoder: got none, and class okapi is described in words; wanted the"):
        model.predict(rows, OKAPI)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        got = model.score(rows, OKAPI, text_encoder="bag").values
        np.testing.assert_allclose(got, fitted("attributes").score(rows, OKAPI).values, rtol=1e-5)


@pytest.mark.parametrize("embedding", ["text", "attributes", "both"])
def test_another_encoder_is_refused(fitted, rows, embedding):
    with pytest.raises(InputError) as error:
        fitted(embedding).predict(rows, OKAPI, text_encoder="other")
    wanted = "bag of words of bag, with which the model was trained"
    assert str(error.value) == f"text_encoder: other has digest another; wanted {wanted}"


def test_a_model_of_both_is_asked_with_both(fitted, rows):
    model = fitted("both")
    known = model._inside.attributes["words"]
    assert known["weight"] == 0.25 and known["attributes"] == len(model.attribute_names)
    assert model.class_embeddings.shape == (20, known["attributes"] + Bag.dim)
    own = dict(zip(model.attribute_names, model.class_embeddings[3, : known["attributes"]], strict=True))
    of_name = descriptions.embedded(Bag(), descriptions.of_names(["okapi"]))
    attributes = words.unit_rows(model.class_embeddings[[3], : known["attributes"]])
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)  # nothing is filled in
        named = model.score(rows, {"okapi": own}).values
        said = model.score(rows, {"okapi": own | {"description": OKAPI["okapi"]}}).values
    for got, text in ((named, of_name), (said, descriptions.embedded(Bag(), OKAPI.values()))):
        row = words.beside(attributes, text, known["weight"])
        np.testing.assert_allclose(got, model.score(rows, (["okapi"], row)).values, rtol=1e-4, atol=1e-5)
    assert np.abs(named - said).max() > 1e-3
    with pytest.warns(UserWarning, match="classes: the attributes of okapi follow from what is said"):
        model.predict(rows, OKAPI)
    names = list(model.class_names[:2])
    np.testing.assert_array_equal(
        model.score(rows, names).values, model.score(rows, (names, model.class_embeddings[:2])).values
    )


def test_a_saved_model_of_both_answers_the_same(fitted, rows, folder, tmp_path, unchecked_exports):
    model = fitted("both")
    model.save(tmp_path / "saved")
    again = zslkeras.load(tmp_path / "saved")
    own = dict(zip(model.attribute_names, model.class_embeddings[3], strict=False))
    asked = {"okapi": own | {"description": OKAPI["okapi"]}}
    np.testing.assert_allclose(again.score(rows, asked).values, model.score(rows, asked).values, rtol=1e-4, atol=1e-5)
    predict.COMMAND(predict.main, ["--model", str(tmp_path / "saved"), "--write_table", str(tmp_path / "own.csv")])
    assert (tmp_path / "own.csv").read_text().splitlines()[0] == ",".join(["class", *model.attribute_names])
    np.testing.assert_allclose(
        again.score(rows, tmp_path / "own.csv").values, again.score(rows).values, rtol=1e-4, atol=1e-5
    )
    assert again.evaluate(folder, features="filters", unseen=0.2, text_encoder="bag", embedding="both")["T"] > 0.2


def test_beside_attributes_what_is_missing_is_refused_although_a_name_is_read(fitted, rows):
    model = fitted("both")
    with pytest.raises(InputError, match="attribute square and 31 more of class okapi missing; wanted all 33"):
        model.predict(rows, {"okapi": {"circle": 1}}, missing="refuse")
    with pytest.raises(InputError, match="classes: no attribute of class okapi is given; wanted at least one"):
        model.predict(rows, {"okapi": {}})
    with pytest.raises(InputError, match="class okapi has attribute value -1; wanted none below 0"):
        model.predict(rows, {"okapi": {"circle": -1}})


@pytest.mark.parametrize("embedding", ["text", "both"])
def test_a_new_class_that_is_described_like_a_known_one_is_named(embedding, fitted, rows):
    model = fitted(embedding)
    known = model.class_names[0]
    text = descriptions.of_names([known])[0][0]
    sentence = f"classes: {known} and okapi are described nearly alike"
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model.predict(rows, {"okapi": text})
        model.predict(rows, {known: text})
    assert [sentence in str(one.message) for one in caught].count(True) == 1


HARM = {
    "weight": ({"weight": None}, "has text beside attributes, and no weight or number of them; wanted both"),
    "none": ({"attributes": 0}, "has text beside attributes, and no weight or number of them; wanted both"),
    "too many": ({"attributes": 500}, "has text beside attributes, and no weight or number of them; wanted both"),
    "said": ({"said": [["a circle"]]}, "has words about 1 of 20 classes; wanted all"),
}


@pytest.mark.parametrize("what", HARM)
def test_an_export_of_both_that_does_not_say_how_is_refused(what, fitted, tmp_path, unchecked_exports):
    harm, sentence = HARM[what]
    fitted("both").save(tmp_path / "saved")
    path = tmp_path / "saved/metadata.json"
    metadata = json.loads(path.read_text())
    known = metadata["attributes"]["words"] | harm
    metadata["attributes"]["words"] = {name: value for name, value in known.items() if value is not None}
    path.write_text(json.dumps(metadata))
    with pytest.raises(InputError, match=sentence):
        zslkeras.load(tmp_path / "saved")


def test_beside_attributes_a_class_that_is_known_keeps_its_text():
    known = {"embedding": "both", "by_name": False, "said": [["striped"], ["spotted"]]}
    own = candidates.Classes(("zebra", "okapi"), np.eye(2), np.array([True, True]))
    given = candidates.Given("classes", ("okapi", "zebra"), (), np.eye(2), ((), ("black and white",)))
    assert serving_words.with_texts(given, own, {"words": known}).said == (["spotted"], ("black and white",))
    given = candidates.Given("classes", ("gnu",), (), np.eye(1), ((),))
    with pytest.raises(InputError, match="classes: class gnu is not described in words; wanted that, as in training"):
        serving_words.with_texts(given, own, {"words": known})
    named = serving_words.with_texts(given, own, {"words": known | {"by_name": True}})
    assert named.said == (("a photo of a gnu",),)


def test_an_export_knows_its_encoder_and_what_was_said(fitted, rows, folder, tmp_path, capsys, unchecked_exports):
    model, picture = fitted("text"), str(next(folder.glob("*/0.png")))
    model.save(tmp_path / "saved")
    known = json.loads((tmp_path / "saved/metadata.json").read_text())["attributes"]["words"]
    assert (known["encoder"], known["digest"], known["by_name"]) == ("bag", "bag of words", True)
    again = zslkeras.load(tmp_path / "saved")
    np.testing.assert_allclose(again.score(rows, OKAPI).values, model.score(rows, OKAPI).values, rtol=1e-4)
    told = [f"--describe={name}: {text}" for name, text in OKAPI.items()]
    predict.COMMAND(predict.main, ["--model", str(tmp_path / "saved"), *told, "--only_new", "--json", picture])
    (found,) = json.loads(capsys.readouterr().out)
    assert found["class"] == "okapi" and len(found["top"]) == 1
    predict.COMMAND(predict.main, ["--model", str(tmp_path / "saved"), "--write_table", str(tmp_path / "own.csv")])
    lines = (tmp_path / "own.csv").read_text().splitlines()
    assert lines[0] == "class,description" and len(lines) == 21
    np.testing.assert_array_equal(
        model.score(rows, tmp_path / "own.csv").values, model.score(rows, list(model.class_names)).values
    )


WRONG = {
    "empty": ({"okapi": " "}, "the description of class okapi is empty; wanted at least a word"),
    "long": ({"okapi": "x" * 100_000}, "has 100000 letters; wanted at most 20000"),
    "mixed": ({"okapi": "striped", "gnu": {"red": 1}}, "classes: class gnu is not described in words; wanted that"),
    "attributes": (
        {"okapi": {"red": 1}},
        "classes: class okapi is not described in words; wanted that, as in training",
    ),
    "kinds": ({"okapi": "striped", "gnu": [1.0, 2.0]}, "classes: got different kinds of values; wanted a text or a"),
}


@pytest.mark.parametrize("what", WRONG)
def test_wrong_words_are_refused_in_a_sentence(what, fitted, rows):
    given, sentence = WRONG[what]
    with pytest.raises(InputError) as error:
        fitted("text").predict(rows, given)
    assert sentence in str(error.value)


def test_new_classes_that_are_described_nearly_alike_are_named(fitted, rows):
    twins = {"okapi": "a red striped circle", "gnu": "a striped red circle"}
    with pytest.warns(UserWarning, match="classes: okapi and gnu are described nearly alike"):
        fitted("text").predict(rows, twins)
    assert words.near(["a", "b"], Bag().encode(["red", "blue"])) is None
    same = Bag().encode(["red"] * 3)
    assert words.near("abc", same, known=2).startswith("a and c are described nearly alike")
    assert words.near("abc", same, known=3) is None


@pytest.mark.parametrize(("by_name", "what"), [(True, "names"), (False, "descriptions")])
def test_words_that_did_not_help_are_told(by_name, what):
    known = {"words": {"embedding": "text", "by_name": by_name}}
    sentence = serving_words.doubt(known, {"T": 0.06, "chance": 0.05})
    assert sentence.startswith(f"{what} alone did not help on your validation classes: T 6 where chance is 5; ")
    assert serving_words.doubt(known, {"T": 0.2, "chance": 0.05}) is None and serving_words.doubt(known, {}) is None
    assert serving_words.doubt({"words": None}, {"T": 0.05, "chance": 0.05}) is None


FLAGS = {
    "no name": (["--describe", "a brown animal"], "--describe: got 'a brown animal'; wanted a name and a text"),
    "twice": (["--describe", "a: b", "--describe", "a: c"], "--describe: class a is there 2 times; wanted it once"),
    "table": (["--describe", "a: b", "--classes", "x.csv"], "--describe: got it beside --classes"),
    "nothing to read": (["--text_encoder", "bag"], "--text_encoder: got it without --describe or --classes"),
}


@pytest.mark.parametrize("what", FLAGS)
def test_wrong_flags_are_refused_in_a_sentence(what, capsys):
    args, sentence = FLAGS[what]
    with pytest.raises(SystemExit) as end:
        predict.COMMAND(predict.main, ["--model", "nowhere", *args, "a.png"])
    assert end.value.code == 2 and sentence in capsys.readouterr().err
