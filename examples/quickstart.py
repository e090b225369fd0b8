"""Trains a classifier, asks it about classes that it was never trained on, and saves it.

    python examples/quickstart.py

The data are drawn on first use, so nothing is downloaded. It takes a minute or two.
"""

import sys

import zslkeras


def main(data_root=None, model="eszsl", folder="shapes-classifier"):
    data = zslkeras.load_benchmark("shapes", data_root)
    classifier = zslkeras.fit(data, model=model, seed=0)
    print(classifier.evaluate(data))

    images = zslkeras.load_benchmark("shapes", data_root, inputs="images").inputs[:3]
    print("among all classes that it knows:", classifier.predict(images))

    # Classes that nobody trained, by some of their attributes; the others are filled in.
    new = {
        "green ring": {"green": 1, "ring": 1, "plain": 1},
        "red star": {"red": 1, "star": 1, "striped": 1},
        "blue star": {"blue": 1, "star": 1, "checked": 1},
    }
    print("among three new ones, with scores:", classifier.predict(images, classes=new, top=3), sep="\n")

    classifier.save(folder)
    again = zslkeras.load(folder)
    assert again.predict(images) == classifier.predict(images)
    print(f"saved: {again} in {folder}")


if __name__ == "__main__":
    main(*sys.argv[1:])
