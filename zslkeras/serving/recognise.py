"""Recognises images with an exported model, among its own classes and those of a table."""

import contextlib
import csv
import dataclasses
import functools
import pathlib
import textwrap

import numpy as np
import tensorflow as tf

from zslkeras import ahead, atomic
from zslkeras.benchmarks import files, tables
from zslkeras.errors import InputError, brief, quoted
from zslkeras.evaluation.confidence import Confidence
from zslkeras.images import decode
from zslkeras.serving import candidates, export, rejection, words
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
        "words?": OrNull(
            {
                "encoder": str,
                "digest": str,
                "embedding": str,
                "by_name": bool,
                "said": [[str]],
                "weight?": float,
                "attributes?": int,
            }
        ),
    },
    "preprocessing": OrNull({"size": int, "crop": bool}),
    "endpoints": dict,
    "precision?": str,
    "without_images?": OrNull(str),
}


@dataclasses.dataclass(frozen=True)
class Asking:
    """What every image is asked.

    Attributes:
        classes: the Classes that it may be.
        others: whether they may be others than the model's own.
        rule: a Rejection, or None.
    """

    classes: Classes
    others: bool
    rule: rejection.Rejection | None = None


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
        words.require_whole(self.metadata["attributes"], len(self.metadata["classes"]), self.path)
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
        """Recognises image files, and returns the list that `recognised` makes; see `asking` and `answers`."""
        asking = self.asking(given, only_new, missing, reject, text_encoder, say)
        return [one for batch in self.answers(images, asking, top, attention) for one in batch]

    def asking(self, given=None, only_new=False, missing="fill", reject=None, text_encoder=None, say=print):
        """The Asking of these classes.

        Args:
            given: further classes; see `candidates.among`.
            only_new: whether only these can be recognised.
            missing: what becomes of attributes that they lack; see `candidates.among`.
            reject, text_encoder: see `ZeroShotClassifier.predict`.
            say: called with each line for the user.
        """
        self.require_images()
        classes = self.classes
        if given is not None:
            attributes = self.metadata["attributes"]
            classes, notes = candidates.among(classes, attributes, given, not only_new, missing, text_encoder)
            for note in notes:
                say(f"note: {note}")
        rule = None
        if reject is not None:
            rule = rejection.Rejection(reject, self.confidence, self.classes, classes, self.metadata["gamma"])
        return Asking(classes, given is not None, rule)

    def answers(self, images, asking, top=5, attention=None, skip_bad=False, done=0):
        """Yields what `recognised` makes of each batch of images, in their order, in memory that does not grow.

        Args:
            images: paths.
            asking: an Asking.
            top: how many classes are listed per image.
            attention: a folder for figures of where the model looks, or None.
            skip_bad: an image that does not decode becomes {"picture", "error"}, instead of an InputError.
            done: how many of the images were answered before.
        """
        self.model  # noqa: B018 is loaded here, and not by two threads at once
        starts = range(done, len(images), AT_ONCE)
        answered = functools.partial(self._answered, asking=asking, skip_bad=skip_bad)
        parts = (images[start : start + AT_ONCE] for start in starts)
        # One batch is read and decoded while another one is computed.
        with contextlib.closing(ahead.each(answered, parts, threads=2, held=2)) as batches:
            for start, (contents, bad, answers) in zip(starts, batches, strict=True):
                here = {row: images[start + row] for row in (*contents, *bad)}
                found = {row: {"picture": str(here[row]), "error": why} for row, why in bad.items()}
                if contents:
                    paths = [here[row] for row in contents]
                    answers, rejected = asking.rule(answers) if asking.rule else (answers, None)
                    good = recognised(paths, answers, asking.classes, self.metadata["gamma"], top, rejected)
                    found |= dict(zip(contents, good, strict=True))
                if contents and attention is not None:
                    names = [f"{start + row:03d}-{pathlib.Path(here[row]).stem}.png" for row in contents]
                    figures = [pathlib.Path(attention) / name for name in names]
                    headings = [one["class"] or rejection.NONE for one in good]
                    thumbnails = decode.load(paths, _DRAWN_SIDE, self.metadata["preprocessing"]["crop"])
                    self._draw_attention(list(contents.values()), thumbnails, figures, headings)
                yield [found[row] for row in sorted(found)]

    def _answered(self, images, asking, skip_bad):
        """({row: bytes}, {row: why there are none}, the answers to the former) of a batch."""
        contents, bad = {}, {}
        for row, image in enumerate(images):
            try:
                contents[row] = decode.read(image)
            except InputError as error:
                bad[row] = error
        try:
            answers = self._asked(contents, asking)
        except tf.errors.InvalidArgumentError:  # the endpoint does not say which one does not decode
            size, crop = (self.metadata["preprocessing"][key] for key in ("size", "crop"))
            rows = list(contents)
            with contextlib.closing(decode.stream([images[row] for row in rows], size, crop)) as decoded:
                damaged = {row: one for row, one in zip(rows, decoded, strict=True) if isinstance(one, InputError)}
            if not damaged:
                raise
            bad |= damaged
            contents = {row: content for row, content in contents.items() if row not in damaged}
            answers = self._asked(contents, asking)
        if bad and not skip_bad:
            raise bad[min(bad)]
        return contents, {row: str(why) for row, why in bad.items()}, answers

    def _asked(self, contents, asking):
        """The answers to {row: bytes}; None for no image."""
        if not contents:
            return None
        if not asking.others:
            return _of_endpoint(self.model.signatures["serve"], list(contents.values()))
        asked = asking.rule.asked if asking.rule else asking.classes
        among = {"class_embeddings": tf.constant(asked.embeddings), "seen_mask": tf.constant(asked.seen)}
        return _of_endpoint(self.model.signatures["score_classes"], list(contents.values()), **among)

    def write_table(self, path):
        """Writes the model's own classes as a CSV to start from."""
        try:
            with open(path, "x", newline="", encoding="utf-8") as file:
                # The text of a float32 is the shortest that reads back as the same number.
                columns, rows = self._described()
                own = [[name, *row] for name, row in zip(self.classes.names, rows, strict=True)]
                csv.writer(file, lineterminator="\n").writerows([["class", *columns], *own])
        except OSError as error:
            raise InputError(f"write_table: {path}: {error.strerror}; wanted a new file") from error

    def _described(self):
        """The columns and rows of a table of the model's own classes."""
        attributes = self.metadata["attributes"]
        embedding, own = words.embedding_of(attributes), self.classes
        if embedding == "both":
            own, _ = words.without_text(own, attributes)
        columns, rows = [], [[] for _ in own.names]
        if embedding != "text":
            columns, rows = list(self.attribute_names), [list(map(str, row)) for row in own.embeddings]
        if embedding == "text" or (embedding == "both" and not attributes["words"]["by_name"]):
            columns = [*columns, tables.DESCRIPTION]
            said = ("\n".join(texts) for texts in attributes["words"]["said"])  # each line is read on its own
            rows = [[*row, text] for row, text in zip(rows, said, strict=True)]
        return columns, rows

    def _draw_attention(self, contents, thumbnails, paths, headings):
        """Draws where the model looks, one PNG per image: for the attributes or classes with the highest scores."""
        if "attention" not in self.model.signatures:
            method = self.metadata["model"]
            raise InputError(f"attention: {method} has none; wanted a model with attention, such as msdn")
        from zslkeras.figures import plots  # imported here because it takes a second, which others save

        answers = _of_endpoint(self.model.signatures["attention"], contents)
        try:
            paths[0].parent.mkdir(parents=True, exist_ok=True)
            for row, path in enumerate(paths):
                lines = {}
                for kind in sorted(name for name in answers if f"{name}_scores" in answers):
                    scores = answers[f"{kind}_scores"][row]
                    names = self.classes.names if kind == "class" else self.attribute_names
                    # Text beside attributes has no names.
                    best = np.argsort(-scores[: len(names)], kind="stable")[:TOP_ATTRIBUTES]
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


def _of_endpoint(endpoint, contents, **given):
    """The answers of an endpoint to a batch of images: name -> array."""
    return {name: one.numpy() for name, one in endpoint(inputs=tf.constant(contents), **given).items()}


def _is_export(path):
    return (path / "metadata.json").is_file()
