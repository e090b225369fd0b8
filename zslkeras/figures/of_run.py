"""The figures of a finished run, and how often its attention points at the object.

All of this reads test images, after everything is chosen, but for `AttentionInTraining`, which reads stage tune. What
can be drawn depends on the methods of the model: `attention(inputs)` returns {name: maps [B, n, H, W]}. The name
"class" has one map per class of the stage; any other name has one per attribute, and `attribute_scores(inputs)` returns
{the same names: [B, n]}. `embed(inputs)` returns {space: [B, D]} for t-SNE. `channel_weights(inputs)` returns
[B, A, C]: how much of each channel an attribute lets through.
"""

import csv
import io
import itertools
import pathlib
import re
import tempfile
import textwrap

import keras
import numpy as np
import tensorflow as tf

from zslkeras import atomic, benchmarks, protocol
from zslkeras.benchmarks import folder, shapes
from zslkeras.errors import InputError
from zslkeras.evaluation import metrics, tables
from zslkeras.figures import plots
from zslkeras.images import decode
from zslkeras.models import MODELS
from zslkeras.progress import Progress
from zslkeras.training import batches

SEED = 0  # of the draws of images and classes, and of t-SNE
TOP_ATTRIBUTES = 5
WRONG_CLASSES = 3  # beside the true one; JLAF, Fig. 2 (a)
TSNE_CLASSES = 10  # of the seen ones, and of the unseen ones; MSDN, Fig. 5
TSNE_POINTS = 1000
PERPLEXITY = 30.0  # t-SNE's usual one; less where there are few points
FEWEST_POINTS = 10  # fewer are not worth a panel
DRAWN_ATTRIBUTES, DRAWN_CHANNELS = 12, 32  # at random; DRMN, Fig. 5
MOST_PANELS = 4
VIEW_DRAWS = 4  # of each image in the sheet of views
HAS_ATTRIBUTE = 0.5  # a class of shapes has the attributes that are above this in its embedding
# These attributes describe what lies outside the object's mask, so attention to them belongs elsewhere.
NOT_ON_OBJECT = (*shapes.GROUPS["background"], "shadow")

_CLASSES = "class"
_SIDE = 224  # pixels of a photograph as it is drawn
_TITLE_WIDTH, _HEADING_WIDTH = 20, 26  # letters that fit over a map, and over an image


def write_plots(experiment, finished, yardsticks):
    """Draws the seen-unseen curve, the training curve, and the confusion of unseen classes, for the first seed.

    The curve is drawn beside those of all `yardsticks`, {name: Finished}, and the confusion beside that of ESZSL.
    """
    first, model = finished[0], experiment.model
    others = {tables.label(name, model): one for name, one in yardsticks.items() if one is not first}
    if has_unseen(first):
        curves = {}
        for label, one in {model: first, **others}.items():
            numbers = metrics.numbers(one.outcomes, one.choice.gamma)
            chosen = numbers["U"], numbers["S"]
            curves[label] = *metrics.curve(one.outcomes), chosen, numbers["AUSUC"]
        plots.seen_unseen_curve(experiment.out / "curve.png", curves)
        eszsl = tables.label("eszsl", model)
        beside = {eszsl: others[eszsl]} if eszsl in others else {}
        write_confusion(experiment.out, experiment, {**beside, model: first})
    if first.choice.history:
        drawn = {metric: f"val_{metric}" for metric in ("T", "U", "S", "H", "AUSUC")}
        plots.history(experiment.out / "history.png", first.choice.history, drawn, first.choice.state)


def has_unseen(finished):
    """Whether any test image is of an unseen class."""
    return len(finished.outcomes.unseen) > 0 and bool(finished.outcomes.in_unseen.any())


def write_confusion(out, experiment, runs):
    """Draws confusion matrices of the unseen classes side by side, for {label: Finished}; ASPN, Fig. 3 (c) and (d)."""
    unseen = next(iter(runs.values())).outcomes.unseen
    names = protocol.published(experiment).class_names
    tables = {label: metrics.confusion(one.outcomes) for label, one in runs.items()}
    plots.confusion(out / "confusion.png", tables, [names[c] for c in unseen])


def write_attention(out, runs, count):
    """Draws attention on `count` test images, of unseen and seen classes in turn: attention-ROW.png and attention.csv.

    Attention over attributes is drawn as in MSDN's Fig. 4: in the folder of each run, one line per sub-net, with the
    attributes that it scores highest. Attention over classes is drawn as in JLAF's Fig. 2 (a): in `out`, one line per
    run, with the true class and the wrong classes that the last run scores highest. In an ablation, the last run is
    the full model.

    Args:
        out: the folder of all runs.
        runs: {name: (Experiment, Finished)}, the rows of an ablation or a single run.
        count: how many images.

    Returns:
        A sentence if the images behind the maps are missing, else None.
    """
    first, _ = next(iter(runs.values()))
    benchmark = protocol.published(first)
    rows = _drawn(benchmark, count)
    pictures, lack = _pictures(lambda: protocol.published_pictures(first.data), benchmark, rows)
    views, classes = {}, None  # {folder: {line: the (title, map) pairs of each image}}
    for name, (experiment, finished) in reversed(runs.items()):
        attention = _attention(protocol.rebuilt(experiment, finished, benchmark), benchmark, rows)
        for kind, (maps, scores) in attention.items():
            if kind == _CLASSES:
                classes = _true_and_wrong(scores, benchmark.labels[rows]) if classes is None else classes
                where, line, shown = out, readable(name or experiment.model), classes
            else:
                where, line, shown = experiment.out, readable(kind), _highest(scores, benchmark)
            views.setdefault(where, {})[line] = _titled(kind, benchmark, maps, scores, shown)
    for where, lines in views.items():
        table = []
        for place, row in enumerate(rows):
            path = where / f"attention-{row}.png"
            table.append((path.name, row, *_draw_attention(path, benchmark, row, pictures[place], lines, place)))
        _write_csv(where / "attention.csv", ("file", "row", "class", "group"), table)
    return lack


class AttentionInTraining(keras.callbacks.Callback):
    """Shows in TensorBoard where the model looks after each epoch, in images of validation classes and of seen ones."""

    is_kept = False  # in checkpoints, as it changes nothing

    def __init__(self, count, data, benchmark, fold, folder):
        """
        Args:
            count: how many images.
            data: the Data of a run.
            benchmark, fold: stage tune, as the model reads it.
            folder: of the logs.
        """
        super().__init__()
        self._benchmark, self._rows, self._folder = benchmark, _drawn(benchmark, count), folder
        self._pictures, _ = _pictures(lambda: data.load("tune", "images", fold), benchmark, self._rows)

    def on_epoch_end(self, epoch, logs=None):
        attention = _attention(self.model, self._benchmark, self._rows)
        if not attention:  # in this row of an ablation
            return
        labels = self._benchmark.labels[self._rows]
        lines = {
            readable(kind): _titled(
                kind,
                self._benchmark,
                maps,
                scores,
                _true_and_wrong(scores, labels) if kind == _CLASSES else _highest(scores, self._benchmark),
            )
            for kind, (maps, scores) in attention.items()
        }
        with tempfile.TemporaryDirectory() as private, tf.summary.create_file_writer(str(self._folder)).as_default():
            for place, row in enumerate(self._rows):
                path = pathlib.Path(private) / "drawn.png"
                name, _ = _draw_attention(path, self._benchmark, row, self._pictures[place], lines, place)
                drawn = tf.io.decode_png(path.read_bytes(), channels=3)
                tf.summary.image(f"attention/{row}-{name}", drawn[None], step=epoch)


def write_channels(experiment, finished, count):
    """Draws how much of some channels some attributes let through, in `count` images: channels.png; DRMN, Fig. 5.

    Attributes and channels are picked at random. If the model, or this row of its ablation, weighs no channels,
    nothing is drawn.
    """
    benchmark = protocol.published(experiment)
    model = protocol.rebuilt(experiment, finished, benchmark)
    if not getattr(model, "weighs_channels", False):
        return
    rows, generator = _drawn(benchmark, min(count, MOST_PANELS)), np.random.default_rng(SEED)
    weights = _over(model.channel_weights, benchmark, rows)[:, : _attributes(benchmark)]
    attributes, channels = (
        np.sort(generator.permutation(size)[:most])
        for size, most in zip(weights.shape[1:], (DRAWN_ATTRIBUTES, DRAWN_CHANNELS), strict=True)
    )
    names = [readable(_attribute_names(benchmark)[place]) for place in attributes]
    panels = {
        f"{readable(benchmark.class_names[benchmark.labels[row]])}\nimage {row}": of_row[attributes][:, channels]
        for row, of_row in zip(rows, weights, strict=True)
    }
    plots.channel_weights(experiment.out / "channels.png", panels, names)


def write_tsne(experiment, finished):
    """Draws t-SNE of each space of `embed`, for seen and unseen test images: tsne.png and tsne.csv; MSDN, Fig. 5."""
    from sklearn.manifold import TSNE  # imported here because it takes a second, which other runs save

    benchmark = protocol.published(experiment)
    model = protocol.rebuilt(experiment, finished, benchmark)
    groups = {"seen": benchmark.test_seen, "unseen": benchmark.test_unseen}
    groups = {group: _sampled(benchmark, rows) for group, rows in groups.items()}
    panels = [
        (group, space, rows, vectors.reshape(len(rows), -1))
        for group, rows in groups.items()
        if len(rows) >= FEWEST_POINTS
        for space, vectors in sorted(_over(model.embed, benchmark, rows).items(), key=lambda one: one[0] != "baseline")
    ]
    points, classes, table = {}, {}, []
    with Progress("t-SNE", len(panels)) as bar:
        for group, space, rows, vectors in panels:
            # "exact" runs in one thread: fast enough for so few points, and the same on any number of cores.
            perplexity = min(PERPLEXITY, (len(rows) - 1) / 3)
            tsne = TSNE(perplexity=perplexity, init="pca", method="exact", random_state=SEED)
            alike = not np.ptp(vectors, axis=0).any()  # of a branch that was not trained: all in one place
            places = np.zeros((len(rows), 2)) if alike else tsne.fit_transform(vectors)
            names = [benchmark.class_names[label] for label in benchmark.labels[rows]]
            points.setdefault(f"{group} classes", {})[readable(space)] = places
            classes[f"{group} classes"] = [readable(name) for name in names]
            for row, name, (x, y) in zip(rows, names, places, strict=True):
                table.append((space, group, row, name, f"{x:.4f}", f"{y:.4f}"))
            bar.advance()
    if points:
        plots.embeddings(experiment.out / "tsne.png", points, classes)
        _write_csv(experiment.out / "tsne.csv", ("space", "group", "row", "class", "x", "y"), table)


def write_views(experiment, finished, count):
    """Draws what `model.prepare` makes of `count` training images, VIEW_DRAWS times each: views.png."""
    benchmark = protocol.published(experiment)
    model = protocol.rebuilt(experiment, finished, benchmark, trained=False)
    rows = np.random.default_rng(SEED).permutation(benchmark.train)[:count]
    pictures = benchmark.take(rows)
    views = [
        [tf.nest.flatten(model.prepare(tf.constant(picture), (row, draw))) for draw in range(VIEW_DRAWS)]
        for row, picture in zip(rows, pictures, strict=True)
    ]
    plots.views(experiment.out / "views.png", pictures, _arrays(views))


def pointing(experiment, finished):
    """How often attention has its peak on the object: for models with attention, on shapes, whose objects are known.

    If there is a map per class, the map of the true class counts. If there is a map per attribute, the attributes of
    the image's class count (its embedding is above HAS_ATTRIBUTE): once all of them, and once those that can be seen
    on the object.

    Returns:
        {"pointing": {name of the attention: {which maps: {"maps", "chance", "trained", "untrained"}}}}, or {}.
        "chance" is the share of cells on the object; "trained" and "untrained" have the mean, std and values of seeds.
    """
    if experiment.data.name.lower() != "shapes" or not hasattr(MODELS[experiment.model], "attention"):
        return {}
    benchmark = protocol.published(experiment)
    masks = shapes.object_masks(
        experiment.data.root or benchmarks.default_root(), experiment.data.options.get("draw", 0)
    )
    seeds = {
        state: [
            _points(protocol.rebuilt(experiment, one, benchmark, state == "trained"), benchmark, masks)
            for one in finished
        ]
        for state in ("trained", "untrained")
    }
    table = {}
    for name, which in seeds["trained"][0]:
        hits, chance = seeds["trained"][0][name, which]
        entry = {"maps": len(hits), "chance": float(chance.mean())}
        for state, of_seeds in seeds.items():
            entry[state] = metrics.summary(one[name, which][0].mean() for one in of_seeds)
        table.setdefault(name, {})[which] = entry
    return {"pointing": table} if table else {}


def readable(name):
    """A name from a file or from code as words: 001.Black_footed_Albatross, grizzly+bear, has_wing_color::red."""
    words = re.sub(r"^\d+\.", "", name).removeprefix("has_").replace("::", ": ").replace("_to_", " → ")
    return re.sub(r"[_+]", " ", words).strip()


def _points(model, benchmark, masks):
    """{(name of the attention, which maps): (hits, chances), one of each per map} of one model over all test images."""
    on_object = ~np.isin(benchmark.attribute_names, NOT_ON_OBJECT)
    parts = {}
    rows = benchmark.tested
    start = 0
    for inputs, labels in batches.scoring(benchmark, rows):
        of_batch = masks[rows[start : start + len(labels)]]
        start += len(labels)
        has = benchmark.class_embeddings[labels] > HAS_ATTRIBUTE
        for name, maps in _arrays(model.attention(_tensors(inputs))).items():
            if name == _CLASSES:
                counted = {"true class": np.arange(maps.shape[1]) == labels[:, None]}
            else:
                counted = {"attributes of the object": has & on_object, "all attributes": has}
            for which, chosen in counted.items():
                picture, place = np.nonzero(chosen)
                result = metrics.pointing(maps[picture, place], of_batch[picture])
                parts.setdefault((name, which), []).append(result)
    return {key: tuple(map(np.concatenate, zip(*results, strict=True))) for key, results in parts.items()}


def _drawn(benchmark, count):
    """`count` test rows of unseen and seen classes in turn. A smaller `count` gives the first rows of a larger one."""
    generator = np.random.default_rng(SEED)
    groups = [generator.permutation(rows) for rows in (benchmark.test_unseen, benchmark.test_seen)]
    mixed = [row for pair in itertools.zip_longest(*groups) for row in pair if row is not None]
    return np.array(mixed[:count])


def _sampled(benchmark, rows):
    """Some of `rows`: at most TSNE_CLASSES classes, and as many rows of each as TSNE_POINTS allows."""
    generator, labels = np.random.default_rng(SEED), benchmark.labels[rows]
    classes, most = np.unique(labels), TSNE_POINTS // (2 * TSNE_CLASSES)
    classes = generator.permutation(classes)[:TSNE_CLASSES]
    parts = [generator.permutation(rows[labels == label])[:most] for label in np.sort(classes)]
    return np.concatenate([rows[:0], *parts])


def _draw_attention(path, benchmark, row, picture, lines, place):
    """Draws the maps of one row, and returns the name of its class and "seen" or "unseen".

    Args:
        lines: {line: the (title, map) pairs of each image}.
        place: of the row among these images.
    """
    label = benchmark.labels[row]
    name, group = benchmark.class_names[label], "unseen" if label in benchmark.unseen_classes else "seen"
    heading = f"{textwrap.fill(readable(name), _HEADING_WIDTH)}\n{group} class"
    plots.attention(path, picture, heading, {line: of_line[place] for line, of_line in lines.items()})
    return name, group


def _highest(scores, benchmark):
    """[K, n] the attributes with the highest scores [K, A] in each image."""
    return np.argsort(-scores[:, : _attributes(benchmark)], axis=1, kind="stable")[:, :TOP_ATTRIBUTES]


def _attributes(benchmark):
    """How many of the columns of the class embeddings are attributes: all, or those before the text beside them."""
    return (benchmark.words and benchmark.words.attributes) or benchmark.class_embeddings.shape[1]


def _titled(kind, benchmark, maps, scores, shown):
    """For each image the (title, map) pairs of what is `shown` [K, n] of it: classes, or attributes."""
    names = benchmark.class_names if kind == _CLASSES else _attribute_names(benchmark)
    return [
        [(f"{textwrap.fill(readable(names[i]), _TITLE_WIDTH)}\n{scores[row, i]:z.2f}", maps[row, i]) for i in which]
        for row, which in enumerate(shown)
    ]


def _pictures(load, benchmark, rows):
    """The images of `rows` (uint8) and None; or None for each image, and a sentence that says what is missing.

    Args:
        load: reads the stage as images.
        benchmark: the stage as the model reads it.
        rows: of both.
    """
    try:
        images = load()
        # The rows of a folder may have another order in a file of maps than on disk.
        fields = ("labels", "train", "test_seen", "test_unseen")
        if not all(np.array_equal(getattr(images, field), getattr(benchmark, field)) for field in fields):
            raise InputError(f"{benchmark.source}: its rows are not those of the images in {images.source}")
        pictures = images.take(rows)
        if pictures.dtype != np.uint8:
            squeezed = benchmark.features == folder.FILTERS  # only the filter bank sees an image up to its edges
            pictures = decode.load(pictures, _SIDE, crop=not squeezed)
        return pictures, None
    except InputError as error:
        return [None] * len(rows), f"attention is drawn without the images behind it: {error}"


def _true_and_wrong(scores, labels):
    """[B, 1 + WRONG_CLASSES] the true class, then the wrong ones with the highest scores."""
    wrong = np.where(np.arange(scores.shape[1]) == labels[:, None], -np.inf, scores)
    order = np.argsort(-wrong, axis=1, kind="stable")[:, : min(WRONG_CLASSES, scores.shape[1] - 1)]
    return np.concatenate([labels[:, None], order], axis=1)


def _attribute_names(benchmark):
    number = benchmark.class_embeddings.shape[1]
    return benchmark.attribute_names or [f"attribute {place}" for place in range(1, number + 1)]


def _attention(model, benchmark, rows):
    """{name of the attention: (maps [K, n, H, W], scores [K, n])} over the images of `rows`."""

    def look(inputs):
        maps = model.attention(inputs)
        scores = model.attribute_scores(inputs) if maps.keys() - {_CLASSES} else {}
        if _CLASSES in maps:
            scores = {**scores, _CLASSES: model.score_classes(inputs, model.class_embeddings.value)}
        return {kind: (maps[kind], scores[kind]) for kind in maps}

    return _over(look, benchmark, rows)


def _over(function, benchmark, rows):
    """Calls `function` on the inputs of `rows` in batches; joins its structures of tensors [B, ...] as arrays."""
    parts = [_arrays(function(_tensors(inputs))) for inputs, _ in batches.scoring(benchmark, rows)]
    return tf.nest.map_structure(lambda *arrays: np.concatenate(arrays), *parts)


def _tensors(inputs):
    return tf.nest.map_structure(tf.constant, inputs)


def _arrays(tensors):
    return tf.nest.map_structure(lambda tensor: np.asarray(tensor, np.float32), tensors)


def _write_csv(path, header, rows):
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([header, *rows])
    atomic.write_text(path, text.getvalue())
