"""python -m experiments.predict --model DIR PICTURES: what an exported model recognises in pictures.

DIR is a `saved_model` that was exported --with_backbone, or the folder of its run. With --classes a table says which
classes there are besides, a line a class, attributes in any order. A class whose name the model knows is replaced: its
attributes are those of the table, and it stays seen or unseen. Any other is added as one that was never trained.
--only_new leaves all others out; --write_table writes one to go by. --serve answers over HTTP instead.
"""

import csv
import dataclasses
import difflib
import json
import pathlib
import sys
import textwrap

import numpy as np
import tensorflow as tf
from absl import flags

from zslkeras.benchmarks import files, folder
from zslkeras.errors import InputError
from zslkeras.images import decode

FLAGS = flags.FlagValues()  # its own: --model and --classes of other commands are something else
flags.DEFINE_string("model", None, "the folder of an export, or of a run that has one", FLAGS)
flags.DEFINE_string("classes", None, "classes by their attributes: CSV, TSV, or .npy with names in a .txt", FLAGS)
flags.DEFINE_string("write_table", None, "write the model's own classes as a CSV to go by, and end", FLAGS)
flags.DEFINE_bool("only_new", False, "recognise the classes of --classes alone", FLAGS)
flags.DEFINE_integer("top", 5, "classes shown of a picture", lower_bound=1, flag_values=FLAGS)
flags.DEFINE_bool("json", False, "print JSON", FLAGS)
flags.DEFINE_string("attention", None, "also draw where the model looks into this folder", FLAGS)
flags.DEFINE_integer("serve", None, "answer requests on this port, 0 for a free one", 0, 65535, FLAGS)
flags.DEFINE_string("host", "127.0.0.1", "of --serve: where to listen; the default is this machine alone", FLAGS)
flags.DEFINE_string("name", None, "of --serve: what the model is called; by default its method", FLAGS)
flags.DEFINE_bool("help", False, "print this", FLAGS)

AT_ONCE = 32  # pictures in a batch
SCALE = 3.0  # how many times shorter or longer than any class of the model a given class may be
TOP_ATTRIBUTES = 5
_DRAWN_SIDE = 224  # pixels of a picture behind attention
_TITLE_WIDTH, _HEADING_WIDTH = 20, 26  # letters that fit over a map, and over a picture
_MARK = "never trained"


@dataclasses.dataclass(frozen=True)
class Classes:
    """Who may be recognised.

    Attributes:
        names: K of them.
        embeddings: [K, A].
        seen: [K], true where a class was trained.
    """

    names: tuple[str, ...]
    embeddings: np.ndarray
    seen: np.ndarray


def main(argv):
    if not FLAGS.model:
        raise InputError("--model is missing; wanted the folder of an export, as in --model runs/msdn-shapes")
    path = _export_folder(pathlib.Path(FLAGS.model))
    metadata = files.read_json(path / "metadata.json")
    pictures = argv[1:]
    if FLAGS.serve is not None:
        if pictures or FLAGS.classes:
            raise InputError("--serve: got pictures or classes; wanted them in requests")
        _serve(path, metadata)
        return
    if FLAGS.write_table:
        _write_table(pathlib.Path(FLAGS.write_table), _own_classes(path, metadata), metadata["attributes"])
        return
    if FLAGS.only_new and not FLAGS.classes:
        raise InputError("--only_new: got no --classes; wanted a table of the new ones")
    if not pictures:
        raise InputError("no pictures; wanted their files, as in --model DIR a.jpg b.png")
    if metadata["inputs"]["kind"] != "bytes":
        kind, run = metadata["inputs"]["kind"], path.parent
        raise InputError(
            f"--model: {path} takes {kind}, not pictures; wanted an export by "
            f"`python -m experiments.export --run {run} --with_backbone`"
        )
    classes = own = _own_classes(path, metadata)
    if FLAGS.classes:
        classes = with_table(own, metadata["attributes"], FLAGS.classes, FLAGS.only_new)
    thumbnails = decode.load(pictures, _DRAWN_SIDE, metadata["preprocessing"]["crop"])  # names a damaged one
    contents = [decode.read(picture) for picture in pictures]
    model = _loaded(path)
    if classes is own:
        answers = _asked(model.signatures["serve"], contents)
    else:
        given = {"class_embeddings": tf.constant(classes.embeddings), "seen_mask": tf.constant(classes.seen)}
        answers = _asked(model.signatures["score_classes"], contents, **given)
    found = recognised(pictures, answers, classes, metadata["gamma"], FLAGS.top)
    if FLAGS.attention:
        names = [f"{row:03d}-{pathlib.Path(picture).stem}.png" for row, picture in enumerate(pictures)]
        paths = [pathlib.Path(FLAGS.attention) / name for name in names]
        _draw_attention(model, metadata, contents, thumbnails, own, paths, [one["class"] for one in found])
    print(json.dumps(found, indent=1) if FLAGS.json else as_text(found))


def with_table(own, attributes, path, only_new=False):
    """The classes of a model with those of a table.

    Args:
        own: the model's Classes.
        attributes: what its metadata say of them.
        path: a CSV or TSV `class,attr1,attr2,...`, or an .npy [C, A] with the names in a .txt beside it.
        only_new: whether the classes of the table are all there are.
    """
    path = pathlib.Path(path)
    names, columns, values = folder.read_table(path)
    values = _in_order(path, columns, values, attributes)
    for name, row in zip(names, values, strict=True):
        _require_scale(path, name, row, attributes)
    if attributes["unit_length"]:
        values = files.unit_rows(values)
    seen = {name: bool(is_seen) for name, is_seen in zip(own.names, own.seen, strict=True)}
    merged = {} if only_new else dict(zip(own.names, own.embeddings, strict=True))
    merged |= dict(zip(names, values, strict=True))
    embeddings = np.asarray(list(merged.values()), np.float32)
    return Classes(tuple(merged), embeddings, np.array([seen.get(name, False) for name in merged]))


def recognised(pictures, answers, classes, gamma, top):
    """What was found in each picture, as JSON has it; `score` has gamma on it where a class was never trained."""
    calibrated = answers["scores"] + gamma * ~classes.seen
    order = np.argsort(-calibrated, axis=1, kind="stable")[:, :top]

    def entry(row, place):
        trained = bool(classes.seen[place])
        return {"class": classes.names[place], "score": float(calibrated[row, place]), "trained": trained}

    return [
        {
            "picture": str(picture),
            **entry(row, answers["label"][row]),
            "top": [entry(row, place) for place in order[row]],
        }
        for row, picture in enumerate(pictures)
    ]


def as_text(found):
    """A table a picture: the decision, then the classes of the highest scores."""
    width = max(len(one["class"]) for picture in found for one in picture["top"])
    lines = []
    for picture in found:
        mark = "" if picture["trained"] else f" ({_MARK})"
        lines.append(f"{picture['picture']}: {picture['class']}{mark}")
        for place, one in enumerate(picture["top"], 1):
            mark = "" if one["trained"] else f"  {_MARK}"
            lines.append(f"  {place:3d}  {one['class']:{width}s}  {one['score']:8.3f}{mark}")
    return "\n".join(lines)


def _export_folder(path):
    for choice in (path, path / "saved_model"):
        if (choice / "metadata.json").is_file():
            return choice
    raise InputError(f"--model: no metadata.json in {path}; wanted the folder of an export, or of a run that has one")


def _own_classes(path, metadata):
    embeddings = files.read_matrix(path / "class_embeddings.npy", len(metadata["classes"]))
    return Classes(tuple(metadata["classes"]), embeddings, np.array(metadata["seen"]))


def _loaded(path):
    try:
        return tf.saved_model.load(str(path))
    except Exception as error:  # TensorFlow raises anything on a damaged file
        raise InputError(f"--model: {path} cannot be loaded ({str(error)[:150]}); wanted a whole export") from error


def _write_table(path, own, attributes):
    named = attributes["names"] or [f"attribute {place}" for place in range(1, attributes["number"] + 1)]
    try:
        with open(path, "x", newline="", encoding="utf-8") as file:
            # A float32 as text is the shortest that reads back as the same number.
            rows = [[name, *map(str, row)] for name, row in zip(own.names, own.embeddings, strict=True)]
            csv.writer(file, lineterminator="\n").writerows([["class", *named], *rows])
    except OSError as error:
        raise InputError(f"--write_table: {path}: {error.strerror}; wanted a new file") from error


def _in_order(path, columns, values, attributes):
    """The columns of a table in the model's order."""
    known = attributes["names"]
    if not known or not columns:  # nothing to go by but their number
        if values.shape[1] != attributes["number"]:
            raise InputError(f"{path}: {values.shape[1]} attributes; wanted the {attributes['number']} of the model")
        return values
    for column in columns:
        if column not in known:
            near = difflib.get_close_matches(column, known, 1)
            hint = f"did you mean {near[0]}?" if near else f"wanted {', '.join(known[:5])}, ..."
            raise InputError(f"{path}: the model knows no attribute {column!r}; {hint}")
    if missing := [name for name in known if name not in columns]:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise InputError(f"{path}: attribute {missing[0]}{more} missing; wanted all {len(known)} of the model")
    return values[:, [columns.index(name) for name in known]]


def _require_scale(path, name, row, attributes):
    """Refuses attributes that cannot be on the scale of the model's."""
    with np.errstate(over="ignore"):
        length, (shortest, longest) = float(np.linalg.norm(row)), attributes["lengths"]
    if not np.isfinite(length):
        raise InputError(f"{path}: the attributes of class {name} have length {length}; wanted a finite one")
    if not length:
        raise InputError(f"{path}: all attributes of class {name} are 0; wanted some that it has")
    if row.min() < 0 and not attributes["has_negatives"]:
        raise InputError(f"{path}: class {name} has attribute value {row.min():g}; wanted none below 0, as in training")
    if not attributes["unit_length"] and not shortest / SCALE <= length <= longest * SCALE:
        raise InputError(
            f"{path}: the attributes of class {name} have length {length:.3g}, those in training {shortest:.3g} to "
            f"{longest:.3g}; wanted the same scale"
        )


def _asked(endpoint, contents, **given):
    """The answers of an endpoint to all pictures: name -> array."""
    parts = []
    for start in range(0, len(contents), AT_ONCE):
        parts.append(endpoint(inputs=tf.constant(contents[start : start + AT_ONCE]), **given))
    return {name: np.concatenate([part[name].numpy() for part in parts]) for name in parts[0]}


def _draw_attention(model, metadata, contents, thumbnails, own, paths, headings):
    """Where the model looks, a PNG a picture: the attributes, or the classes, of the highest scores."""
    if "attention" not in model.signatures:
        raise InputError(f"--attention: {metadata['model']} has none; wanted a model with attention, such as msdn")
    from zslkeras import plots  # here, for it takes a second that others need not wait

    answers = _asked(model.signatures["attention"], contents)
    attributes = metadata["attributes"]
    named = attributes["names"] or [f"attribute {place}" for place in range(1, attributes["number"] + 1)]
    try:
        paths[0].parent.mkdir(parents=True, exist_ok=True)
        for row, path in enumerate(paths):
            lines = {}
            for kind in sorted(name for name in answers if f"{name}_scores" in answers):
                scores, names = answers[f"{kind}_scores"][row], own.names if kind == "class" else named
                best = np.argsort(-scores, kind="stable")[:TOP_ATTRIBUTES]
                lines[kind.replace("_to_", " → ").replace("_", " ")] = [
                    (f"{textwrap.fill(names[i], _TITLE_WIDTH)}\n{scores[i]:z.2f}", answers[kind][row, i]) for i in best
                ]
            plots.attention(path, thumbnails[row], textwrap.fill(headings[row], _HEADING_WIDTH), lines)
    except OSError as error:
        raise InputError(f"--attention: {error.filename}: {error.strerror}; wanted a folder to write to") from error


def _serve(path, metadata):
    try:
        from experiments import serve
    except ImportError as error:
        raise InputError(f"--serve: needs {error.name}; wanted pip install 'zslkeras[serve]'") from None
    serve.serve(_loaded(path), FLAGS.name or metadata["model"], FLAGS.host, FLAGS.serve)


def run(args=None):
    try:
        FLAGS.unparse_flags()
        arguments = FLAGS(sys.argv if args is None else args)
        if FLAGS.help:
            print(__doc__, FLAGS.get_help(), sep="\n")
            return
        main(arguments)
    except (InputError, flags.Error) as error:
        print(f"error: {error}".replace("\n", " "), file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    run()
