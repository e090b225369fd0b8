"""What `experiments.run --model NAME --describe` prints: parameters by part, and operations counted in the graphs.

Settings are those of the paper. No data is needed: the sizes of the usual benchmarks are below. Operations are those of
matrix products and convolutions, where a multiplication and an addition are two. Loops and elementwise work are not
counted.
"""

import collections

import numpy as np
import tensorflow as tf

from zslkeras import graphs
from zslkeras.benchmarks import Benchmark
from zslkeras.models import config as configs
from zslkeras.models import presets

# name: (width of an embedding, seen classes, unseen classes)
SIZES = {
    "awa1": (85, 40, 10),
    "awa2": (85, 40, 10),
    "cub": (312, 150, 50),
    "cub, sentences": (1024, 150, 50),
    "sun": (102, 645, 72),
    "flo": (1024, 82, 20),
}
_WIDTH = 2048  # of ResNet-101's features
_SHAPES = {"features": (_WIDTH,), "maps": (7, 7, _WIDTH)}
_PRINTED = {
    # 11.363 + 2.562 M on AWA. No plain reading comes near the operations: one pass of a row through all parts and a
    # second critic is 27.8 MFLOP, and sums of several passes that give 109.8 are arbitrary.
    "aspn": """Table 2 prints 13.9 M parameters and 109.8 MFLOP.
The parameters are AWA's with a second critic: the predecessor has one for real pairs and one for generated ones.
The operations fit neither one pass of a row through the parts nor its share of a step; the paper does not say what
was counted.""",
}


def describe(model_class, name, datasets=tuple(SIZES)):
    """The table for one model, as text."""
    if model_class.eats not in _SHAPES:
        return f"the parts of {name} depend on its backbone: run it on a dataset to see them"
    lines = []
    for dataset in datasets:
        sizes = SIZES[dataset]
        config = configs.build(model_class, name, presets.settings("paper", name, dataset.split(",")[0]))
        model, batch = _built(model_class, config, sizes)
        lines.append(f"\n{name} on {dataset}: {sizes[0]} numbers per class, {sizes[1]} + {sizes[2]} classes")
        parts = _parts(model)
        parts["all"] = sum(parts.values(), start=np.zeros(2))
        for part, (parameters, operations) in parts.items():
            passed = f"{operations / 1e6:>10.2f} MFLOP" if model.eats == "features" else ""
            lines.append(f"  {part:<24}{parameters / 1e6:>10.3f} M{passed}")
        for task, operations in _tasks(model, batch).items():
            operations /= config.batch_size * 1e6
            lines.append(f"  {task:<24}{'':12}{operations:>10.2f} MFLOP per row in batches of {config.batch_size}")
    return "\n".join([*lines, "", _PRINTED.get(name, "")]).rstrip()


def flops(function, *args):
    """Floating-point operations of one call of a tf.function: its matrix products and convolutions, without loops."""
    graph = function.get_concrete_function(*args).graph
    graphs = [graph, *(one.graph for one in graph._functions.values() if hasattr(one, "graph"))]
    return sum(_operations(operation) for one in graphs for operation in one.get_operations())


def _operations(operation):
    if operation.type == "MatMul":
        first = operation.inputs[0].shape
        inner = first[0] if operation.get_attr("transpose_a") else first[1]
    elif operation.type in ("BatchMatMul", "BatchMatMulV2", "BatchMatMulV3"):
        first = operation.inputs[0].shape
        inner = first[-2] if operation.get_attr("adj_x") else first[-1]
    elif operation.type == "Conv2D":
        inner = int(np.prod(operation.inputs[1].shape[:3]))
    else:
        return 0
    return 2 * inner * int(np.prod(operation.outputs[0].shape))


def _built(model_class, config, sizes):
    """A compiled model of a benchmark's sizes, and a batch for it; the model is counted, and never run."""
    width, seen, unseen = sizes
    generator = np.random.default_rng(0)
    labels = np.arange(max(config.batch_size, seen), dtype=np.int32) % seen
    shape = _SHAPES[model_class.eats]
    benchmark = Benchmark(
        name="sizes",
        source="sizes",
        kind=model_class.eats,
        inputs=np.zeros((len(labels), *shape), np.float32),
        labels=labels,
        class_embeddings=generator.random((seen + unseen, width), np.float32),
        class_names=tuple(f"class {c}" for c in range(seen + unseen)),
        seen_classes=np.arange(seen),
        unseen_classes=np.arange(seen, seen + unseen),
        train=np.arange(len(labels)),
        test_seen=np.arange(0),
        test_unseen=np.arange(0),
        finite=True,
    )
    model = model_class(config, shape, benchmark.class_embeddings, benchmark.seen_mask)
    model.compile()
    rows = np.arange(config.batch_size)
    return model, (tf.constant(benchmark.take(rows)), tf.constant(labels[rows]))


def _parts(model):
    """{layer or weight: [its trainable parameters, operations of one pass of a row through its matrices]}."""
    owner = {id(variable): layer.name for layer in model.layers for variable in layer.variables}
    parts = collections.defaultdict(lambda: np.zeros(2))
    for variable in model.trainable_variables:
        size = int(np.prod(variable.shape))
        parts[owner.get(id(variable), variable.name)] += size, 2 * size * (len(variable.shape) == 2)
    return parts


def _tasks(model, batch):
    score = graphs.function(lambda inputs: model.score_classes(inputs, model.class_embeddings.value))
    train = graphs.function(lambda batch: model.train_step(batch))
    return {"scoring": flops(score, batch[0]), "training": flops(train, batch)}
