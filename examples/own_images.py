"""From a folder of images to a served model: trains on it, asks for a class that it was never shown, and serves.

    python examples/own_images.py

A few images are drawn here in place of photographs of yours, so nothing is downloaded. It takes a minute or two.
"""

import base64
import csv
import json
import pathlib
import subprocess
import sys
import time
import urllib.request

from PIL import Image

import zslkeras


def draw(folder, data_root=None):
    """Makes a folder as yours would be: a sub-folder of images for each class but one, and classes.csv.

    Returns the name of the class that is left out, and where its images are.
    """
    data = zslkeras.load_benchmark("shapes", data_root, stage="final", inputs="images")
    late = data.class_names[data.unseen_classes[0]]
    for row, label in enumerate(data.labels):
        name = data.class_names[label]
        place = folder.parent / late if name == late else folder / name
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(data.inputs[row]).save(place / f"{row}.png")
    with open(folder / "classes.csv", "w", newline="") as stream:
        lines = csv.writer(stream)
        lines.writerow(["class", *data.attribute_names])
        lines.writerows(
            [name, *row] for name, row in zip(data.class_names, data.class_embeddings.tolist(), strict=True)
        )
    return late, sorted((folder.parent / late).glob("*.png"))


def ask(address, model, image):
    """What the server answers for one image, among all classes that the model knows."""
    body = {"instances": [{"b64": base64.b64encode(image.read_bytes()).decode()}]}
    request = urllib.request.Request(f"{address}/v1/models/{model}:predict", json.dumps(body).encode())
    with urllib.request.urlopen(request) as answer:
        return json.load(answer)["predictions"][0]


def main(data_root=None, folder="own-images", port=8501):
    folder = pathlib.Path(folder)
    late, images = draw(folder / "pictures", data_root)
    model = zslkeras.fit(folder / "pictures", "prototypes", features="filters", unseen="none")
    print(model)
    print(f"{late} has no images; {images[0].name} is taken for", model.predict(images[0]))
    model.save(folder / "model")

    command = [sys.executable, "-m", "zslkeras", "serve", "--model", str(folder / "model"), "--port", str(port)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        address = f"http://127.0.0.1:{port}"
        while server.poll() is None:  # until it answers, or has ended
            try:
                urllib.request.urlopen(f"{address}/v1/models/prototypes")
                break
            except OSError:
                time.sleep(0.5)
        answer = ask(address, "prototypes", images[0])
        print("the server says", model.class_names[answer["label"]])
    finally:
        server.terminate()
        server.wait()


if __name__ == "__main__":
    main(*sys.argv[1:])
