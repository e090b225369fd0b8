"""Recognises images with an exported model, among its own classes and those of a table."""

import csv
import functools
import pathlib
import textwrap

import numpy as np
import tensorflow as tf

from zslkeras import atomic
from zslkeras.benchmarks import files, tables
from zslkeras.errors import InputError, brief, quoted
from zslkeras.evaluation.confidence import Confidence
from zslkeras.images import decode
from zslkeras.serving import candidates, export, rejection
from zslkeras.serving.candidates import Classes
from zslkeras.structure import OrNull

AT_ONCE = 32  # images in a batch
TOP_ATTRIBUTES = 5
_DRAWN_SIDE = 224  # pixels of an image behind attention
_TITLE_WIDTH, _HEADING_WIDTH = 20, 26  # letters that fit over a map, and over an image
_MARK = "never trained"
_METADATA = {  # what is read of `metadata.json`
    "model": str,
    "classes": [str],
    "seen": [bool],
    "gamma": float,
    "inputs": {"kind": str, "shape": list},
    "attributes": {
        "number": int,
        "names": OrNull([str]),
        "unit_length": bool,
        "words?": OrNull({"encoder": str, "digest": str, "embedding": str, "by_name": bool, "said": [[str]]}),
    },
    "preprocessing": OrNull({"size": int, "crop": bool}),
    "endpoints": dict,
    "precision?": str,
    "without_images?": OrNull(str),
}


class Exported:
    """An export on disk, or that of a run's folder. Its metadata are read at once, and the model when it is needed.

    Attributes:
        path: its folder.
        metadata: what `metadata.json` says.
        classes: its own Classes.
    """

    def __init__(self, path):
        places = [place for place in (pathlib.Path(path), pathlib.Path(path) / "saved_model") if _is_export(place)]
        if not places:
            raise InputError(
                f"model: no metadata.json in {path}; wanted the folder of an export, or of a run that has one"
            )
        self.path, path = places[0], places[0] / "metadata.json"
        if (got := atomic.read_json(path).get("format")) != export.FORMAT:
            wanted = f"wanted {export.FORMAT}, which this version reads"
            raise InputError(f"model: {self.path} has format {quoted(got)}; {wanted}")
        self.metadata = atomic.read_json(path, _METADATA)
        if len(self.metadata["seen"]) != len(self.metadata["classes"]):
            got = f"{len(self.metadata['seen'])} entries for {len(self.metadata['classes'])} classes"
            raise InputError(f"{path}: seen has {got}; wanted one for each")
        path = self.path / "class_embeddings.npy"
        embeddings = files.read_matrix(path, len(self.metadata["classes"]))
        if (number := self.metadata["attributes"]["number"]) != embeddings.shape[1]:
            raise InputError(f"{path}: got shape {embeddings.shape}; wanted {number} columns, one for each attribute")
        self.classes = Classes(tuple(self.metadata["classes"]), embeddings, np.array(self.metadata["seen"]))

    @functools.cached_property
    def model(self):
        """The SavedModel."""
        try:
            return tf.saved_model.load(str(self.path))
        except Exception as error:  # TensorFlow raises anything on a damaged file
            got = f"{self.path} cannot be loaded ({brief(error)})"
            raise InputError(f"model: {got}; wanted a whole export") from error

    @functools.cached_property
    def confidence(self):
        """The Confidence on validation rows; None in an export of an earlier version, or where nothing was chosen."""
        path = self.path / export.VALIDATION
        if not path.is_file():
            return None
        try:
            with np.load(path, allow_pickle=False) as file:
                scores, labels, seen = (file[name] for name in ("scores", "labels", "seen"))
        except Exception as error:  # NumPy and zipfile raise anything from zlib.error to TokenError
            raise InputError(f"model: {path} cannot be read ({brief(error)}); wanted a whole export") from None
        return Confidence(scores, labels, seen, self.metadata["gamma"])

    @property
    def attribute_names(self):
        return candidates.attribute_names(self.metadata["attributes"])

    def require_images(self):
        """Refuses an export whose endpoints do not take the bytes of images."""
        kind = self.metadata["inputs"]["kind"]
        if kind != "bytes":
            raise InputError(
                f"model: {self.path} takes {kind}, not images; wanted an export by "
                f"`zslkeras export --run {self.path.parent} --with_backbone`"
            )

    def recognise(
        self,
        images,
        given=None,
        only_new=False,
        top=5,
        attention=None,
        missing="fill",
        say=print,
        reject=None,
        text_encoder=None,
    ):
        """Recognises image files, and returns the list that `recognised` makes.

        Args:
            images: paths.
            given: further classes; see `candidates.among`.
            only_new: whether only these can be recognised.
            top: how many classes are listed per image.
            attention: a folder for figures of where the model looks, or None.
            missing: what becomes of attributes that they lack; see `candidates.among`.
            say: called with each line for the user.
            reject, text_encoder: see `ZeroShotClassifier.predict`.
        """
        self.require_images()
        classes = self.classes
        if given is not None:
            attributes = self.metadata["attributes"]
            classes, notes = candidates.among(classes, attributes, given, not only_new, missing, text_encoder)
            for note in notes:
                say(f"note: {note}")
        gamma, rejected = self.metadata["gamma"], None
        rule = reject is not None and rejection.Rejection(reject, self.confidence, self.classes, classes, gamma)
        asked = rule.asked if rule else classes
        thumbnails = decode.load(images, _DRAWN_SIDE, self.metadata["preprocessing"]["crop"])  # names a damaged image
        contents = [decode.read(image) for image in images]
        if given is None:
            answers = _asked(self.model.signatures["serve"], contents)
        else:
            among = {"class_embeddings": tf.constant(asked.embeddings), "seen_mask": tf.constant(asked.seen)}
            answers = _asked(self.model.signatures["score_classes"], contents, **among)
        if rule:
            answers, rejected = rule(answers)
        found = recognised(images, answers, classes, gamma, top, rejected)
        if attention is not None:
            names = [f"{row:03d}-{pathlib.Path(image).stem}.png" for row, image in enumerate(images)]
            paths = [pathlib.Path(attention) / name for name in names]
            self._draw_attention(contents, thumbnails, paths, [one["class"] or rejection.NONE for one in found])
        return found

    def write_table(self, path):
        """Writes the model's own classes as a CSV to start from."""
        try:
            with open(path, "x", newline="", encoding="utf-8") as file:
                # The text of a float32 is the shortest that reads back as the same number.
                columns, rows = self.attribute_names, [map(str, row) for row in self.classes.embeddings]
                told = self.metadata["attributes"].get("words")
                if told and told["embedding"] == "text":
                    columns, rows = [tables.DESCRIPTION], [[" ".join(texts)] for texts in told["said"]]
                own = [[name, *row] for name, row in zip(self.classes.names, rows, strict=True)]
                csv.writer(file, lineterminator="\n").writerows([["class", *columns], *own])
        except OSError as error:
            raise InputError(f"write_table: {path}: {error.strerror}; wanted a new file") from error

    def _draw_attention(self, contents, thumbnails, paths, headings):
        """Draws where the model looks, one PNG per image: for the attributes or classes with the highest scores."""
        if "attention" not in self.model.signatures:
            method = self.metadata["model"]
            raise InputError(f"attention: {method} has none; wanted a model with attention, such as msdn")
        from zslkeras.figures import plots  # imported here because it takes a second, which others save

        answers = _asked(self.model.signatures["attention"], contents)
        try:
            paths[0].parent.mkdir(parents=True, exist_ok=True)
            for row, path in enumerate(paths):
                lines = {}
                for kind in sorted(name for name in answers if f"{name}_scores" in answers):
                    scores = answers[f"{kind}_scores"][row]
                    names = self.classes.names if kind == "class" else self.attribute_names
                    best = np.argsort(-scores, kind="stable")[:TOP_ATTRIBUTES]
                    lines[kind.replace("_to_", " → ").replace("_", " ")] = [
                        (f"{textwrap.fill(names[i], _TITLE_WIDTH)}\n{scores[i]:z.2f}", answers[kind][row, i])
                        for i in best
                    ]
                plots.attention(path, thumbnails[row], textwrap.fill(headings[row], _HEADING_WIDTH), lines)
        except OSError as error:
            raise InputError(f"attention: {error.filename}: {error.strerror}; wanted a folder to write to") from error


def recognised(pictures, answers, classes, gamma, top, rejected=None):
    """The results for each image, as in the JSON; `score` includes gamma for a class that was never trained.

    Where `rejected` [B] is true, class, score and trained are None.
    """
    calibrated = answers["scores"] + gamma * ~classes.seen
    order = np.argsort(-calibrated, axis=1, kind="stable")[:, :top]

    def entry(row, place):
        trained = bool(classes.seen[place])
        return {"class": classes.names[place], "score": float(calibrated[row, place]), "trained": trained}

    nothing = dict.fromkeys(("class", "score", "trained"))
    return [
        {
            "picture": str(picture),
            **(nothing if rejected is not None and rejected[row] else entry(row, answers["label"][row])),
            "top": [entry(row, place) for place in order[row]],
        }
        for row, picture in enumerate(pictures)
    ]


def as_text(found):
    """One table per image: the decision, then the classes with the highest scores."""
    width = max(len(one["class"]) for picture in found for one in picture["top"])
    lines = []
    for picture in found:
        mark = f" ({_MARK})" if picture["trained"] is False else ""
        lines.append(f"{picture['picture']}: {picture['class'] or rejection.NONE}{mark}")
        for place, one in enumerate(picture["top"], 1):
            mark = "" if one["trained"] else f"  {_MARK}"
            lines.append(f"  {place:3d}  {one['class']:{width}s}  {one['score']:8.3f}{mark}")
    return "\n".join(lines)


def _asked(endpoint, contents, **given):
    """The answers of an endpoint to all images: name -> array."""
    parts = []
    for start in range(0, len(contents), AT_ONCE):
        parts.append(endpoint(inputs=tf.constant(contents[start : start + AT_ONCE]), **given))
    return {name: np.concatenate([part[name].numpy() for part in parts]) for name in parts[0]}


def _is_export(path):
    return (path / "metadata.json").is_file()
