"""What a zero-shot benchmark is: rows, labels, class embeddings, a split, and the two stages made of it.

Stage "final" is the published split. Stage "tune" is made of its training rows alone: validation classes play the
unseen ones, and it holds neither published test rows nor published unseen classes. Every choice (an epoch, a scaler,
gamma, a weight of a loss) is made there.
"""

import dataclasses
import functools
import hashlib

import numpy as np

from zslkeras.benchmarks.words import Words
from zslkeras.errors import InputError

KINDS = ("features", "maps", "levels", "images")
STAGES = ("tune", "final")
_FEW = 5  # validation classes, below which a note says how rough everything is
HELD_OUT_SHARE = 0.2  # of each seen class's rows, to play test_seen in stage tune
_SHORTEST = 1e-18  # of a class embedding; float32 has no square of a shorter one
UNSEEN_SHARE = 0.2  # of the classes, if nothing else says which or how many are unseen


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Benchmark:
    """N rows of one kind of input, C classes, and what each row and class is used for in this stage.

    Attributes:
        name: "flo", "shapes", or the name of your folder.
        source: the file the arrays came from, for error messages.
        kind: one of KINDS.
        inputs: [N, D] features, [N, H, W, F] maps, a tuple of such maps, uint8 images [N, H, W, 3] or image
            paths [N]. May be a memory map; never copied whole.
        labels: [N] class ids; -1 for a row of a class outside this stage.
        class_embeddings: [C, A].
        class_names: C names.
        seen_classes, unseen_classes: class ids, disjoint.
        train, test_seen, test_unseen: row ids, disjoint.
        attribute_names: A names, or empty where the embedding's columns have none.
        attribute_vectors: [A, V] or None.
        validation_classes: the published validation classes (ids among the seen), or None.
        stage: one of STAGES.
        finite: True if the inputs are known to hold no NaN or infinity; else `take` checks each batch.
        features: the name of the extractor that made the inputs; None for images.
        notes: sentences that the user should read once (what was drawn, what was skipped).
        words: what was said about the classes and which encoder read it; None where none did.
        prepared: of images, how the features were made that `zslkeras prepare` made of them: {name: its record}.
        origin: (name, root, options) of `benchmarks.load`, which reads its other stages and kinds of inputs; None for
            one that was made otherwise, and for a changed copy.
    """

    name: str
    source: str
    kind: str
    inputs: np.ndarray | tuple[np.ndarray, ...]
    labels: np.ndarray
    class_embeddings: np.ndarray
    class_names: tuple[str, ...]
    seen_classes: np.ndarray
    unseen_classes: np.ndarray
    train: np.ndarray
    test_seen: np.ndarray
    test_unseen: np.ndarray
    attribute_names: tuple[str, ...] = ()
    attribute_vectors: np.ndarray | None = None
    validation_classes: np.ndarray | None = None
    stage: str = "final"
    finite: bool = False
    features: str | None = None
    notes: tuple[str, ...] = ()
    words: Words | None = None
    prepared: dict = dataclasses.field(default_factory=dict)
    origin: tuple | None = dataclasses.field(default=None, init=False)

    def __post_init__(self):
        rows, classes = len(self.labels), len(self.class_names)
        for array in self._arrays:
            _require(len(array) == rows, self, f"labels: {rows} of them", f"one for each of the {len(array)} inputs")
        _require(
            self.class_embeddings.ndim == 2 and len(self.class_embeddings) == classes,
            self,
            f"class_embeddings: shape {self.class_embeddings.shape}",
            f"({classes}, A), one row per class",
        )
        _require_finite(self, "class_embeddings", self.class_embeddings)
        zero = np.flatnonzero(np.linalg.norm(self.class_embeddings, axis=1) < _SHORTEST)
        if len(zero):
            got = f"class_embeddings: all zero, or as good as that, for class {self.class_names[zero[0]]}"
            raise _wrong(self, got, "an embedding for every class")
        names, counts = np.unique(self.class_names, return_counts=True)
        if counts.max(initial=0) > 1:
            raise _wrong(self, f"class_names: {names[counts > 1][0]} twice", "different names")
        _require_ids(self, "labels", self.labels, -1, classes)
        _require_ids(self, "seen_classes", self.seen_classes, 0, classes)
        _require_ids(self, "unseen_classes", self.unseen_classes, 0, classes)
        _require_disjoint(self, "seen_classes", "unseen_classes")
        if self.validation_classes is not None:
            stray = np.setdiff1d(self.validation_classes, self.seen_classes)
            _require(not len(stray), self, f"validation_classes: {_ids(stray)} not seen", "some of the seen classes")
        for name, group in (("train", "seen"), ("test_seen", "seen"), ("test_unseen", "unseen")):
            ids = getattr(self, name)
            _require_ids(self, name, ids, 0, rows)
            _require(len(np.unique(ids)) == len(ids), self, f"{name}: a row twice", "each row once")
            stray = ids[~np.isin(self.labels[ids], getattr(self, f"{group}_classes"))]
            if len(stray):
                got = f"{name}: row {stray[0]} has class {self._name_of(stray[0])}"
                raise _wrong(self, got, f"rows of {group} classes only")
        _require(len(self.train) > 0, self, "train: no rows", "at least one")
        for first, second in (("train", "test_seen"), ("train", "test_unseen"), ("test_seen", "test_unseen")):
            _require_disjoint(self, first, second)
        columns = self.class_embeddings.shape[1]
        for name in ("attribute_names", "attribute_vectors"):
            values = getattr(self, name)
            if values is not None and len(values) not in (0, columns):
                wanted = f"{columns}, one per column of the class embeddings"
                raise _wrong(self, f"{name}: {len(values)} of them", wanted)
        if self.attribute_vectors is not None:
            shape = np.shape(self.attribute_vectors)
            wanted = f"({columns}, V), with V of at least 1"
            _require(len(shape) == 2 and shape[1] > 0, self, f"attribute_vectors: shape {shape}", wanted)
            _require_finite(self, "attribute_vectors", self.attribute_vectors)

    def __repr__(self):
        counts = f"{len(self.seen_classes)} seen and {len(self.unseen_classes)} unseen classes"
        rows = f"{len(self.train)} rows to train on, {len(self.test_seen) + len(self.test_unseen)} to test on"
        return f"<Benchmark {self.name}, stage {self.stage}: {self.kind} {self.input_shape}, {counts}, {rows}>"

    @property
    def input_shape(self):
        """The shape of one row: (D,), (H, W, F), or a tuple of those for levels."""
        shapes = tuple(array.shape[1:] for array in self._arrays)
        return shapes if self.kind == "levels" else shapes[0]

    @property
    def seen_mask(self):
        """[C] bool, True where a class is seen."""
        return np.isin(np.arange(len(self.class_names)), self.seen_classes)

    @property
    def tested(self):
        """The rows that are scored: those of seen classes, then those of unseen ones."""
        return np.concatenate([self.test_seen, self.test_unseen])

    def take(self, rows):
        """The inputs of `rows`, in that order and in their stored dtype; a tuple for levels."""
        taken = tuple(np.take(array, rows, axis=0) for array in self._arrays)
        if not self.finite and self.kind != "images":
            for array in taken:
                _require_finite(self, "inputs", array, rows)
        return taken if self.kind == "levels" else taken[0]

    @functools.cached_property
    def digest(self):
        """Names this stage's content: labels, embeddings, split, and the input rows that the split uses.

        Inputs larger than 1 GiB are sampled (shape, dtype and 256 evenly spaced rows of the split).
        """
        hasher = hashlib.sha256(repr((self.name, self.stage, self.kind, self.class_names)).encode())
        for field in ("labels", "class_embeddings", "seen_classes", "unseen_classes", *_ROW_SETS):
            hasher.update(np.ascontiguousarray(getattr(self, field)).tobytes())
        used = np.sort(np.concatenate([getattr(self, field) for field in _ROW_SETS]))
        if sum(array.nbytes for array in self._arrays) > 2**30:
            used = used[np.linspace(0, len(used) - 1, 256).astype(int)]
        if self.attribute_vectors is not None:
            hasher.update(np.ascontiguousarray(self.attribute_vectors).tobytes())
        for array in self._arrays:
            hasher.update(repr((array.shape, array.dtype.str)).encode())
            for start in range(0, len(used), 1024):
                hasher.update(np.ascontiguousarray(array[used[start : start + 1024]]).tobytes())
        return hasher.hexdigest()[:16]

    @property
    def _arrays(self):
        return self.inputs if self.kind == "levels" else (self.inputs,)

    def _name_of(self, row):
        label = self.labels[row]
        return self.class_names[label] if label >= 0 else "none of this stage"


_ROW_SETS = ("train", "test_seen", "test_unseen")


def tune_stage(final, fold=0, seed=0):
    """Makes stage "tune" of the training rows of stage "final".

    Args:
        final: a Benchmark of stage "final".
        fold: 0 takes the published validation classes, or draws some where none are published; any other number
            draws as many again.
        seed: of the draws; another seed holds out other rows.

    Returns:
        A Benchmark with ids renumbered over the seen classes of `final`. It has no embedding of a published unseen
        class, and neither their rows nor the test rows have a label or are in one of its row sets.
    """
    _require_attributes(final)
    seen, notes = np.sort(final.seen_classes), list(final.notes)
    validation = final.validation_classes
    # Where the field published none: as large a share of the seen classes as the unseen ones are of all classes, and
    # at most half of them.
    share = len(final.unseen_classes) / max(1, len(final.seen_classes) + len(final.unseen_classes)) or UNSEEN_SHARE
    count = len(validation) if validation is not None else max(2, round(min(share, 0.5) * len(seen)))
    wanted = f"at least {count + 2}: {count} play validation classes, and 2 have to be left to learn from"
    _require(count + 2 <= len(seen), final, f"seen_classes: {len(seen)}", wanted)
    if fold or validation is None:
        validation = np.sort(np.random.default_rng([seed, fold]).choice(seen, count, replace=False))
        names = ", ".join(final.class_names[c] for c in validation[:8]) + (", ..." if count > 8 else "")
        notes.append(f"validation classes drawn (fold {fold}, seed {seed}): {count} of {len(seen)} seen: {names}")
    if count < _FEW:
        one = f"one of them more or less moves accuracies by {100 / count:.0f} points"
        notes.append(f"only {count} validation classes: {one}, so all that is chosen on them is rough")
    labels_of_train = final.labels[final.train]
    generator = np.random.default_rng([seed, fold, 1])
    held_out = draw_held_out(final.train, labels_of_train, np.setdiff1d(seen, validation), generator)
    test_unseen = final.train[np.isin(labels_of_train, validation)]
    ids = np.full(len(final.class_names) + 1, -1, np.int32)  # the last entry maps label -1 to -1
    ids[seen] = np.arange(len(seen), dtype=np.int32)
    labels = np.full(len(final.labels), -1, np.int32)  # test rows lose their label altogether
    labels[final.train] = ids[labels_of_train]
    return dataclasses.replace(
        final,
        stage="tune",
        labels=labels,
        class_embeddings=final.class_embeddings[seen],
        class_names=tuple(final.class_names[c] for c in seen),
        seen_classes=ids[np.setdiff1d(seen, validation)],
        unseen_classes=ids[validation],
        train=np.setdiff1d(final.train, np.concatenate([held_out, test_unseen])),
        test_seen=held_out,
        test_unseen=np.sort(test_unseen),
        validation_classes=None,
        notes=tuple(notes),
        words=final.words and final.words.of(seen),
    )


def draw_held_out(rows, labels, classes, generator):
    """Draws a fifth of the rows of each class, sorted, to play test_seen; the only row of a class stays in train.

    Args:
        rows: [N] row ids.
        labels: [N] their class ids.
        classes: ids of the classes to draw from.
        generator: a numpy Generator.
    """
    drawn = []
    for label in classes:
        own = rows[labels == label]
        count = max(1, round(HELD_OUT_SHARE * len(own))) if len(own) > 1 else 0
        drawn.append(generator.choice(own, count, replace=False))
    return np.sort(np.concatenate(drawn))


def _wrong(benchmark, got, wanted):
    return InputError(f"{benchmark.source}: {got}; wanted {wanted}")


def _require(condition, benchmark, got, wanted):
    if not condition:
        raise _wrong(benchmark, got, wanted)


def _require_ids(benchmark, field, ids, low, high):
    stray = ids[(ids < low) | (ids >= high)]
    _require(not len(stray), benchmark, f"{field}: {_ids(stray)} out of range", f"ids in {max(low, 0)}..{high - 1}")


def _require_disjoint(benchmark, first, second):
    both = np.intersect1d(getattr(benchmark, first), getattr(benchmark, second))
    kind = "classes" if first.endswith("classes") else "rows"
    _require(not len(both), benchmark, f"{first} and {second} share {kind} {_ids(both)}", "none shared")


def _require_attributes(benchmark):
    """Nothing can be learned from class embeddings that do not tell the seen classes apart."""
    embeddings = benchmark.class_embeddings[benchmark.seen_classes]
    columns = embeddings.shape[1]
    got = "class_embeddings: 1 column" if columns < 2 else "class_embeddings: the same for all seen classes"
    differ = columns > 1 and (len(embeddings) < 2 or (embeddings != embeddings[0]).any())
    _require(differ, benchmark, got, "at least two columns that tell classes apart")


def _ids(ids):
    """The first five as text."""
    return ", ".join(str(one) for one in ids[:5].tolist()) + (", ..." if len(ids) > 5 else "")


def _require_finite(benchmark, field, array, rows=None):
    if np.isfinite(array).all():
        return
    first = np.argwhere(~np.isfinite(array))[0]
    row = first[0] if rows is None else np.asarray(rows)[first[0]]
    place = ", ".join(str(index) for index in first[1:].tolist())
    raise _wrong(benchmark, f"{field}: {array[tuple(first)]} at row {row}, position {place}", "finite numbers")
