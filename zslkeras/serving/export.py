"""Exports a trained model as a SavedModel that scores any classes, from inputs or from the bytes of images.

    serve(inputs)                                     scores [B, C] of the benchmark's classes, label [B]: the decision
    czsl(inputs)                                      scores [B, U] of its unseen classes, label [B]: the best of them
    score_classes(inputs, class_embeddings, seen_mask) scores [B, K] of any K classes, label [B]
    embed(inputs), attention(inputs)                  where the model has them

`serve` and `score_classes` decide by calibrated stacking: gamma is added to the scores of unseen classes, which are
those with a false entry in `seen_mask`. A model may have a decision rule of its own, which knows the classes it was
trained on. That rule decides if the given seen classes are exactly those, in the same order; otherwise stacking does.

The folder also holds what the numbers mean: `metadata.json` (names, seen mask, gamma, attributes, preprocessing,
config), `class_embeddings.npy`, and `validation.npz`, the scores of validation rows, from which probabilities and the
threshold of "none of these" come; and `model.keras`, the model for Keras. Requests are checked in the graph, so that
every server refuses a wrong one with the same sentence.
"""

import contextlib
import dataclasses
import json
import math
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import types
import typing
import uuid
import warnings

import numpy as np
import tensorflow as tf

from zslkeras import atomic, graphs
from zslkeras.errors import Failed, InputError
from zslkeras.images import decode
from zslkeras.models.base import ZeroShotModel
from zslkeras.models.layers import in_parts
from zslkeras.precision import computing_in
from zslkeras.version import versions

VALIDATION = "validation.npz"  # in the folder; exports of earlier versions have none
KERAS = "model.keras"  # the Keras model in the folder; those of version 0.1 have none
FORMAT = 1  # of the folder; a new layout gets a new number, which older code refuses
ONNX_OPSET = 17
CLASSES_AT_ONCE = 4096  # more classes are scored in parts of this size
# Of the largest score. A closed form with a ridge of 1e-3 is no more exact in float32: docs/notes/closed_form.md.
TOLERANCE = 1e-4
_SAME = 1e-5  # of the largest attribute: how far given classes may be from those of training, and still be the same
# In bfloat16, sums in another order differ by more.
_COARSE_TOLERANCE = 2e-2


class ExportFailed(Failed):
    """The reloaded model does not answer as the live one does."""


@dataclasses.dataclass(frozen=True)
class FrontEnd:
    """Makes a model's inputs from images.

    Attributes:
        size: side of an image.
        crop: see `decode.picture`.
        inputs: a function from uint8 [B, size, size, 3] to the model's inputs.
        settings: how it does so, for JSON.
    """

    size: int
    crop: bool
    inputs: typing.Callable
    settings: dict

    def __call__(self, contents):
        return self.inputs(decode.pictures(contents, self.size, self.crop))


def endpoints(model, gamma, front=None, checked=True):
    """The endpoints of a model: {name: tf.function}.

    Args:
        model: a trained ZeroShotModel.
        gamma: what is added to the scores of unseen classes.
        front: a FrontEnd, for endpoints that take the bytes of images.
        checked: whether requests are checked in the graph, which only SavedModels can do.
    """
    inputs_spec = _inputs_spec(model, front)
    seen, known = model.seen_mask.value, model.class_embeddings.value
    unseen = np.flatnonzero(seen.numpy() == 0)
    attributes = known.shape[1]

    def eaten(inputs):
        inputs = _checked_inputs(inputs, model, front) if checked else inputs
        return inputs if front is None else front(inputs)

    def scored(inputs, classes):
        if not checked:
            return model.score_classes(inputs, classes)
        return _in_parts(model, inputs, classes)

    def serve(inputs):
        inputs = eaten(inputs)
        scores = scored(inputs, known)
        return {"scores": scores, "label": model.decide(scores, inputs, seen, gamma)}

    def czsl(inputs):
        scores = scored(eaten(inputs), tf.gather(known, unseen))
        return {"scores": scores, "label": tf.gather(tf.constant(unseen), tf.argmax(scores, axis=1))}

    def score_classes(inputs, class_embeddings, seen_mask):
        inputs = eaten(inputs)
        if checked:
            class_embeddings, seen_mask = _checked_classes(class_embeddings, seen_mask, attributes)
        scores = scored(inputs, class_embeddings)
        return {"scores": scores, "label": _decided(model, scores, inputs, class_embeddings, seen_mask, gamma)}

    def closed_form(inputs, class_embeddings):
        form, factor = model.form
        if checked:
            all_new = tf.zeros(tf.shape(class_embeddings)[:1], tf.bool)
            class_embeddings, _ = _checked_classes(class_embeddings, all_new, attributes)
        return {
            "features": model.form_features(eaten(inputs)),
            "prototypes": form.prototypes(class_embeddings),
            "factor": tf.convert_to_tensor(factor),
        }

    def score_shifted(inputs, class_embeddings, seen_mask, shifts):
        inputs = eaten(inputs)
        if checked:
            class_embeddings, seen_mask = _checked_classes(class_embeddings, seen_mask, attributes)
        features = model.form_features(inputs)
        if checked:
            shifts = _checked_shifts(shifts, tf.shape(class_embeddings)[0], features.shape[1])
        scores = scored(inputs, class_embeddings) + tf.matmul(features, shifts, transpose_b=True)
        return {"scores": scores, "label": _decided(model, scores, inputs, class_embeddings, seen_mask, gamma)}

    def embed(inputs):
        return {_key(name): space for name, space in model.embed(eaten(inputs)).items()}

    def attention(inputs):
        inputs = eaten(inputs)
        maps = model.attention(inputs)
        scores = {"class": scored(inputs, known)} if "class" in maps else {}
        if maps.keys() - {"class"}:
            scores |= model.attribute_scores(inputs)
        answers = {_key(name): maps[name] for name in maps}
        return answers | {f"{_key(name)}_scores": scores[name] for name in maps}

    classes_spec = [
        tf.TensorSpec([None, None], tf.float32, "class_embeddings"),
        tf.TensorSpec([None], tf.bool, "seen_mask"),
    ]
    made = {
        "serve": graphs.function(serve, [inputs_spec]),
        "score_classes": graphs.function(score_classes, [inputs_spec, *classes_spec]),
    }
    if len(unseen):
        made["czsl"] = graphs.function(czsl, [inputs_spec])
    if model.form:  # what a few images of a class need, see `examples`
        shifts = tf.TensorSpec([None, None], tf.float32, "shifts")
        made["closed_form"] = graphs.function(closed_form, [inputs_spec, classes_spec[0]])
        made["score_shifted"] = graphs.function(score_shifted, [inputs_spec, *classes_spec, shifts])
    if hasattr(model, "embed"):
        made["embed"] = graphs.function(embed, [inputs_spec])
    if hasattr(model, "attention"):
        looking = graphs.function(attention, [inputs_spec])
        if looking.get_concrete_function().structured_outputs:  # a row of an ablation may have none
            made["attention"] = looking
    return made


def write(path, model, facts, rows, gamma, front=None, formats=(), confidence=None):
    """Writes a folder that needs nothing else. It replaces an existing one only if it answers as the live model does.

    Args:
        path: of the folder.
        model: a trained ZeroShotModel.
        facts: what `metadata.json` says about the classes and the data.
        rows: for the check: inputs of some images, or a list of the bytes of images with a `front`.
        gamma: of calibrated stacking.
        front: a FrontEnd or None.
        formats: from names.FORMATS, for the endpoints `serve` and `score_classes`.
        confidence: a Confidence on validation rows, or None.
    """
    path = pathlib.Path(path)
    if formats and (front is not None or model.eats != "features"):
        eats = "the bytes of images" if front else model.eats
        raise InputError(f"formats: got {','.join(formats)} for endpoints on {eats}; wanted a model on features")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as draft:
            made = endpoints(model, gamma, front)
            try:
                # A client that names no endpoint gets serving_default.
                save(draft, made | {"serving_default": made["serve"]})
            except tf.errors.OpError as error:  # TensorFlow raises no OSError, not even for a full disk
                raise OSError(error.message) from error
            np.save(draft / "class_embeddings.npy", model.class_embeddings.numpy(), allow_pickle=False)
            _bare(model).save(draft / KERAS)
            live = _answers(model, gamma, rows, front)
            for loader, answers in _reloaded(draft, model, rows, front).items():
                _compare(f"{path.name}{loader}", answers, live, _tolerance(model))
            plain = endpoints(model, gamma, checked=False) if formats else {}
            for kind in formats:
                _CONVERTERS[kind](draft, plain, model, rows, live)
            metadata = facts | {
                "format": FORMAT,
                "gamma": float(gamma),
                "inputs": _described_inputs(model, front),
                "preprocessing": front.settings if front else None,
                "endpoints": {name: _described(function) for name, function in made.items()},
                "unseen_classes": np.flatnonzero(model.seen_mask.numpy() == 0).tolist(),  # czsl scores these
                "config": dataclasses.asdict(model.config),
                "precision": model.dtype_policy.name,
                "versions": versions(),
                "formats": list(formats),
                "calibration": confidence and calibration(confidence),
            }
            if confidence:
                arrays = {"scores": confidence.scores, "labels": confidence.labels, "seen": confidence.seen}
                np.savez(draft / VALIDATION, **arrays)
            (draft / "metadata.json").write_text(json.dumps(metadata, indent=1) + "\n")
    except OSError as error:
        raise InputError(f"{path}: {error.strerror or error}; wanted a folder that can be written") from error
    return metadata


def calibration(confidence):
    """The temperature of probabilities, and the expected calibration error on validation rows, for JSON."""
    before, after = confidence.errors
    return {"temperature": confidence.temperature, "before": before, "after": after}


def _bare(model):
    """The model without its optimizers, which may be larger than itself; `compile` makes them anew."""
    with computing_in(model.dtype_policy.name):
        bare = type(model).from_config(model.get_config())
    for variable, value in zip(bare.variables, model.variables, strict=True):
        variable.assign(value)
    return bare


def sentence(error):
    """The message of a failed endpoint, without its place in the graph."""
    said = str(getattr(error, "message", error)).partition("\n\t [[")[0].strip().rpartition("\n")[2]
    found = re.fullmatch(r"assertion failed: \[(.*)\]", said)
    return found[1] if found else (said or type(error).__name__)[:300]


def _inputs_spec(model, front):
    # Widths are left open and checked in the graph: no server compares its inputs with what a graph declares.
    if front is not None:
        return tf.TensorSpec([None], tf.string, "inputs")
    dtype = tf.uint8 if model.eats == "images" else tf.float32
    if model.eats == "levels":
        return tuple(
            tf.TensorSpec([None] * (1 + len(shape)), dtype, f"inputs_{level}")
            for level, shape in enumerate(model.row_shape)
        )
    return tf.TensorSpec([None] * (1 + len(model.row_shape)), dtype, "inputs")


def _checked_inputs(inputs, model, front):
    """The inputs, checked for the shapes of the model and for finite numbers."""
    tensors, shapes = [inputs], [()] if front else [model.row_shape]
    if front is None and model.eats == "levels":
        tensors, shapes = list(inputs), model.row_shape
    rows, checked = tf.shape(tensors[0])[0], []
    for tensor, shape in zip(tensors, shapes, strict=True):
        got = tf.shape(tensor)
        wanted = f"[B{''.join(f', {side}' for side in shape)}] with B of at least 1"
        fits = tf.reduce_all(got[1:] == tf.constant(shape, tf.int32, [len(shape)])) & (got[0] > 0) & (got[0] == rows)
        with tf.control_dependencies([_require(fits, f"inputs: got shape {{}}; wanted {wanted}", got)]):
            tensor = tf.identity(tensor)
        tensor.set_shape([None, *shape])
        checked.append(_finite(tensor, "inputs") if tensor.dtype.is_floating else tensor)
    return tuple(checked) if front is None and model.eats == "levels" else checked[0]


def _checked_classes(class_embeddings, seen_mask, attributes):
    got, masks = tf.shape(class_embeddings), tf.shape(seen_mask)
    fits = (got[0] > 0) & (got[1] == attributes)
    wanted = f"[K, {attributes}] with K of at least 1"
    checks = [_require(fits, f"class_embeddings: got shape {{}}; wanted {wanted}", got)]
    with tf.control_dependencies(checks):
        checks.append(
            _require(masks[0] == got[0], "seen_mask: got {} entries; wanted one per class, {}", masks[0], got[0])
        )
    with tf.control_dependencies(checks):
        class_embeddings, seen_mask = tf.identity(class_embeddings), tf.identity(seen_mask)
    class_embeddings.set_shape([None, attributes])
    return _finite(class_embeddings, "class_embeddings"), seen_mask


def _checked_shifts(shifts, classes, width):
    got, wanted = tf.shape(shifts), tf.stack([classes, width])
    with tf.control_dependencies(
        [_require(tf.reduce_all(got == wanted), "shifts: got shape {}; wanted {}", got, wanted)]
    ):
        return _finite(shifts, "shifts")


def _require(condition, sentence, *values):
    return tf.debugging.Assert(condition, [tf.strings.format(sentence, values)])


def _finite(tensor, name):
    finite = tf.reduce_all(tf.math.is_finite(tensor))
    with tf.control_dependencies([_require(finite, f"{name}: got NaN or infinity; wanted finite numbers")]):
        return tf.identity(tensor)


def _in_parts(model, inputs, classes):
    """Scores [B, K] in parts of CLASSES_AT_ONCE, so that no number of classes needs more memory than its scores."""
    if classes.shape[0] is not None and classes.shape[0] <= CLASSES_AT_ONCE:
        return model.score_classes(inputs, classes)
    return in_parts(lambda part: model.score_classes(inputs, part), classes, CLASSES_AT_ONCE)


def _decided(model, scores, inputs, class_embeddings, seen_mask, gamma):
    """The decision among given classes: the model's own if their seen classes are exactly those it was trained on."""
    if type(model).seen_answers is ZeroShotModel.seen_answers:
        return model.decide(scores, inputs, seen_mask, gamma)
    trained = tf.boolean_mask(model.class_embeddings.value, model.seen_mask.value > 0)
    given = tf.boolean_mask(class_embeddings, seen_mask)
    same = tf.cond(
        tf.shape(given)[0] == tf.shape(trained)[0],
        lambda: tf.reduce_all(tf.abs(given - trained) <= _SAME * tf.reduce_max(tf.abs(trained))),
        lambda: tf.constant(False),
    )

    def stacked():
        plain = types.SimpleNamespace(seen_answers=lambda *args: ZeroShotModel.seen_answers(model, *args))
        return ZeroShotModel.decide(plain, scores, inputs, seen_mask, gamma)

    return tf.cond(same, lambda: model.decide(scores, inputs, seen_mask, gamma), stacked)


def _key(name):
    """An output's name in the form that a SavedModel accepts."""
    return name.replace(" ", "_")


def save(path, functions, callable_too=True):
    """Writes a SavedModel of functions; it holds the weights they read and no others (no critic, no optimizer)."""
    module = tf.Module()
    graphs = {name: function.get_concrete_function() for name, function in functions.items()}
    variables = {id(one): one for graph in graphs.values() for one in graph.variables}
    module.weights = list(variables.values())
    for name, function in functions.items() if callable_too else ():
        setattr(module, name, function)
    tf.saved_model.save(module, str(path), signatures=graphs)


def _described_inputs(model, front):
    shape = model.row_shape
    return {"kind": "bytes" if front else model.eats, "shape": [list(one) if np.ndim(one) else one for one in shape]}


def _described(function):
    graph = function.get_concrete_function()
    given = tf.nest.flatten(graph.structured_input_signature)
    named = {spec.name: spec for spec in given}
    return {
        "inputs": {name: [spec.dtype.name, spec.shape.as_list()] for name, spec in named.items()},
        "outputs": {
            name: [spec.dtype.name, spec.shape.as_list()] for name, spec in sorted(graph.structured_outputs.items())
        },
    }


def _asked(model, rows, front):
    """The requests of the check: one array per input. Classes are reversed, to check that any order works."""
    if front is not None:
        inputs = {f"inputs/{place:04d}": np.frombuffer(one, np.uint8) for place, one in enumerate(rows)}
    elif model.eats == "levels":
        inputs = {f"inputs_{level}": np.asarray(one, np.float32) for level, one in enumerate(rows)}
    else:
        inputs = {"inputs": np.asarray(rows, np.uint8 if model.eats == "images" else np.float32)}
    classes = model.class_embeddings.numpy()[::-1]
    asked = inputs | {"class_embeddings": classes, "seen_mask": model.seen_mask.numpy()[::-1] > 0}
    if model.form:
        shape = len(classes), model.form[0].matrix.shape[1]
        asked["shifts"] = np.cos(np.arange(math.prod(shape), dtype=np.float32)).reshape(shape)
    return asked


def _answers(model, gamma, rows, front):
    """The answers of the live model, from its public methods: "endpoint/output" -> array."""
    inputs = front(tf.constant(rows)) if front else tf.nest.map_structure(tf.constant, rows)
    asked = _asked(model, rows, front)
    seen, known = model.seen_mask.value, model.class_embeddings.value
    unseen = np.flatnonzero(seen.numpy() == 0)
    scores = model.score_classes(inputs, known)
    answers = {"serve/scores": scores, "serve/label": model.decide(scores, inputs, seen, gamma)}
    answers |= {f"serving_default/{name}": answers[f"serve/{name}"] for name in ("scores", "label")}
    answers["score_classes/scores"] = scores[:, ::-1]
    if type(model).seen_answers is ZeroShotModel.seen_answers:
        answers["score_classes/label"] = model.decide(scores[:, ::-1], inputs, asked["seen_mask"], gamma)
    if len(unseen):
        answers["czsl/scores"] = tf.gather(scores, unseen, axis=1)
        answers["czsl/label"] = unseen[tf.argmax(answers["czsl/scores"], axis=1)]
    if model.form:
        form, factor = model.form
        features = model.form_features(inputs)
        answers |= {"closed_form/features": features, "closed_form/prototypes": form.prototypes(known)[::-1]}
        answers["closed_form/factor"] = factor
        shifted = scores[:, ::-1] + tf.matmul(features, asked["shifts"], transpose_b=True)
        answers["score_shifted/scores"] = shifted
    for name in ("embed", "attention"):
        if hasattr(model, name):
            answers |= {f"{name}/{_key(key)}": value for key, value in getattr(model, name)(inputs).items()}
    return {name: np.asarray(value) for name, value in answers.items()}


def _reloaded(path, model, rows, front):
    """{how it was loaded: the answers} of the folder's model, in a process that imports only TensorFlow."""
    with tempfile.TemporaryDirectory() as scratch:
        asked, got = pathlib.Path(scratch) / "asked.npz", pathlib.Path(scratch) / "got.npz"
        np.savez(asked, **_asked(model, rows, front))
        script = pathlib.Path(__file__).with_name("selfcheck.py")
        command = [sys.executable, "-I", str(script), str(path), str(asked), str(got)]
        done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "2"})
        if done.returncode:
            last = (done.stderr.strip().splitlines() or ["no word"])[-1]
            raise ExportFailed(f"the reloaded model failed: {last[:300]}")
        said = {"loaded": "", "session": " in graph mode"}  # of the loaders of selfcheck.py
        loaded = {words: {} for words in said.values()}
        with np.load(got, allow_pickle=False) as answers:
            for name, answer in answers.items():
                loader, _, key = name.partition(" ")
                loaded[said[loader]][key] = answer
        return loaded


def _compare(what, got, wanted, tolerance):
    """Raises ExportFailed unless all answers are those of the live model."""
    for name, value in wanted.items():
        if name not in got or got[name].shape != value.shape:
            shape = got[name].shape if name in got else "nothing"
            raise ExportFailed(f"{what}: {name}: got shape {shape}; wanted {value.shape}, as in the live model")
        if value.dtype.kind in "iu" and tolerance > TOLERANCE:
            continue  # a label: classes may change places if scores may be off by so much
        off = np.max(np.abs(got[name].astype(np.float64) - value), initial=0.0)
        most = 0.0 if value.dtype.kind in "iu" else tolerance * max(1.0, float(np.max(np.abs(value), initial=0.0)))
        if not off <= most:  # also refuses NaN
            raise ExportFailed(f"{what}: {name} is off by {off:.3g} from the live model; wanted at most {most:.3g}")


def _tolerance(model):
    return TOLERANCE if model.compute_dtype == "float32" else _COARSE_TOLERANCE


def _to_tflite(folder, functions, model, rows, live):
    with tempfile.TemporaryDirectory() as scratch:
        # Without attributes: if a model has one named "serve", the converter takes no other endpoint.
        save(scratch, {name: functions[name] for name in ("serve", "score_classes")}, callable_too=False)
        converter = tf.lite.TFLiteConverter.from_saved_model(scratch, signature_keys=["serve", "score_classes"])
        try:
            content = converter.convert()
        except Exception as error:  # the converter raises whatever its C++ parts report
            raise ExportFailed(f"tflite: {str(error).strip().splitlines()[0][:200]}") from error
    (folder / "model.tflite").write_bytes(content)
    with warnings.catch_warnings(action="ignore"):  # the warning that it will move to another package
        interpreter = tf.lite.Interpreter(model_content=content)
    asked, got = _asked(model, rows, None), {}
    for name in ("serve", "score_classes"):
        runner = interpreter.get_signature_runner(name)
        answers = runner(**{key: asked[key] for key in runner.get_input_details()})
        got |= {f"{name}/{key}": answer for key, answer in answers.items()}
    _compare("tflite", got, {key: live[key] for key in got if key in live}, _tolerance(model))


def _to_onnx(folder, functions, model, rows, live):
    try:
        import onnxruntime
        import tf2onnx
    except ImportError as error:
        raise InputError(
            f"formats: onnx needs {error.name}; wanted the extra [onnx], as in pip install -e '.[onnx]'"
        ) from None
    asked, got = _asked(model, rows, None), {}
    for name in ("serve", "score_classes"):
        path = folder / f"{name}.onnx"
        signature = functions[name].input_signature
        tf2onnx.convert.from_function(functions[name], signature, opset=ONNX_OPSET, output_path=str(path))
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        names = [output.name for output in session.get_outputs()]
        answers = session.run(names, {one.name: asked[one.name.split(":")[0]] for one in session.get_inputs()})
        got |= {f"{name}/{key}": answer for key, answer in zip(names, answers, strict=True)}
    _compare("onnx", got, {key: live[key] for key in got if key in live}, _tolerance(model))


_CONVERTERS = {"tflite": _to_tflite, "onnx": _to_onnx}


@contextlib.contextmanager
def replacing(path):
    """Like `atomic.replacing`, for a folder: the draft replaces `path` at the end, or is removed.

    Whenever it is killed, `path` is the old folder or the new one, on systems that can exchange two names.
    """
    draft, old = (path.with_name(f".{path.name}.{uuid.uuid4().hex}") for _ in range(2))
    try:
        draft.mkdir()
        yield draft
        if not path.exists():
            draft.rename(path)
        elif not atomic.exchange(draft, path):
            path.rename(old)
            try:
                draft.rename(path)
            except OSError:
                old.rename(path)
                raise
        for stale in path.parent.glob(f".{path.name}.*"):  # `old`, and what killed processes left
            shutil.rmtree(stale, ignore_errors=True)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
