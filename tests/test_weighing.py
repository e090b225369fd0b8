"""The weight of text beside attributes is chosen on validation classes."""

import numpy as np
import pytest

from tests.support.exported import draw
from tests.support.words import Bag
from zslkeras import protocol, weighing
from zslkeras.errors import InputError
from zslkeras.text import encoders


@pytest.fixture(autouse=True)
def encoder_by_name(monkeypatch):
    monkeypatch.setattr(encoders, "load", lambda name: {"bag": Bag}[str(name)]())


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return draw(tmp_path_factory.mktemp("drawn") / "pictures")


def data_of(folder, **more):
    options = {"features": "filters", "unseen": 0.2, "text_encoder": "bag", "embedding": "both"}
    return protocol.Data(str(folder), options=options | more)


def test_the_weight_with_the_highest_area_is_taken(folder, monkeypatch):
    areas = {0.0: 0.3, 0.25: 0.35, 0.5: 0.4, 1.0: 0.2}
    monkeypatch.setattr(weighing, "_area", lambda data: areas[data.options["text_weight"]])
    said = []
    made = weighing.chosen(data_of(folder), said.append)
    assert made.options["text_weight"] == 0.5 and made.options["embedding"] == "both"
    assert said == [
        "note: text weighs 0.5 beside attributes, which is best for the prototypes on validation classes: "
        "AUSUC 30.0 at 0, 35.0 at 0.25, 40.0 at 0.5, 20.0 at 1"
    ]
    areas[0.0] = 0.9
    made = weighing.chosen(data_of(folder), said.append)
    assert made.options["embedding"] == "attributes" and "text_weight" not in made.options
    assert said[1].startswith("note: words are left out beside attributes, which is best for")


def test_the_area_is_that_of_the_prototypes_on_validation_classes(folder, monkeypatch):
    tune = data_of(folder, text_weight=0.5).load("tune", "features")
    attributes = data_of(folder, embedding="attributes").load("tune", "features").class_embeddings
    assert tune.words.weight == 0.5 and tune.attribute_names[-1] == f"text {Bag.dim}"
    np.testing.assert_allclose(
        tune.class_embeddings[:, : attributes.shape[1]] * np.sqrt(1.25),
        attributes,
        rtol=1e-5,
        err_msg="of length one beside half of it",
    )
    few = protocol.MODELS["prototypes"].Config(scalings=("l2",), whitenings=(1.0,), lambdas=(0.1,))
    monkeypatch.setattr(protocol.MODELS["prototypes"], "Config", lambda: few)
    area = weighing._area(data_of(folder, text_weight=0.5))
    # 0.5 is the weight of data that no weight was chosen for.
    assert area == protocol.select(protocol.Experiment("prototypes", few, data_of(folder)), 0).area > 0


def test_other_data_stay_as_they_are(folder):
    for data in (data_of(folder, embedding="text"), data_of(folder, text_weight=0.25), protocol.Data("shapes")):
        assert weighing.chosen(data) is data


WRONG = {
    "negative": ({"text_weight": -1.0}, "text_weight: got -1.0; wanted a number of at least 0"),
    "no number": ({"text_weight": float("nan")}, "text_weight: got nan; wanted a number of at least 0"),
    "alone": ({"embedding": "text", "text_weight": 1.0}, "text_weight: got 1.0 for embedding text; wanted it for both"),
    "no encoder": ({"text_encoder": None}, "text_encoder: got none to read the names of classes"),
}


@pytest.mark.parametrize("what", WRONG)
def test_wrong_settings_are_refused_in_a_sentence(what, folder):
    more, sentence = WRONG[what]
    with pytest.raises(InputError) as error:
        data_of(folder, **more).load("tune", "features")
    assert sentence in str(error.value)


def test_without_pooled_features_a_weight_has_to_be_given(folder):
    with pytest.raises(InputError, match="text_weight: got none, and it cannot be chosen without pooled features"):
        weighing.chosen(data_of(folder, features="none-such"))
    with pytest.raises(InputError, match="^text_encoder: got none to read the names of classes"):
        weighing.chosen(data_of(folder, text_encoder=None))
    with pytest.raises(InputError, match="^embedding: has no meaning for dataset shapes"):
        weighing.chosen(protocol.Data("shapes", options={"embedding": "both"}))
