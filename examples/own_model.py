"""A model of your own: it trains, is judged, answers for new classes and is saved like any other.

    python examples/own_model.py

The model is one class, a linear map from features to class embeddings, in examples/linear/zslkeras_linear.py. That
folder is a whole package: where it is installed, every command knows the model, and nobody need register it.
"""

import pathlib
import sys

import zslkeras

sys.path.append(str(pathlib.Path(__file__).parent / "linear"))  # in place of installing the package
from zslkeras_linear import Linear


def main(data_root=None, folder="linear-classifier"):
    zslkeras.MODELS["linear"] = Linear
    data = zslkeras.load_benchmark("shapes", data_root)
    model = zslkeras.fit(data, model="linear", seed=0)
    print(model.evaluate(data))
    images = zslkeras.load_benchmark("shapes", data_root, inputs="images").inputs[:3]
    new = {"green ring": {"green": 1, "ring": 1}, "red star": {"red": 1, "star": 1}}
    print(model.predict(images, classes=new, top=2))
    model.save(folder)
    assert zslkeras.load(folder).predict(images) == model.predict(images)


if __name__ == "__main__":
    main(*sys.argv[1:])
