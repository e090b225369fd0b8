"""The measurements of `experiments.speed`: functions of how often each timing is repeated."""

import concurrent.futures
import functools
import http.client
import json
import os
import pathlib
import statistics
import tempfile
import threading
import time

import keras
import numpy as np
import tensorflow as tf
from PIL import Image

from experiments.describe import flops
from zslkeras import benchmarks, graphs
from zslkeras.benchmarks import Benchmark
from zslkeras.evaluation import metrics
from zslkeras.images import augment, extract
from zslkeras.models import presets
from zslkeras.models.aspn import ASPN
from zslkeras.models.dcen import DCEN
from zslkeras.models.drmn import DRMN, attend_in_blocks
from zslkeras.models.eszsl import ESZSL
from zslkeras.models.jlaf import JLAF, class_loss, manifold_loss, reconstruction_loss
from zslkeras.models.layers import l2_normalize
from zslkeras.models.msdn import MSDN
from zslkeras.runs import commit
from zslkeras.serving import export
from zslkeras.training import batches, strategies
from zslkeras.training import loop as training_loop
from zslkeras.version import versions


def machine(repeats):
    """What the figures were made on."""
    del repeats
    gpus = tf.config.list_physical_devices("GPU")
    built = tf.sysconfig.get_build_info()
    return {
        "gpus": [tf.config.experimental.get_device_details(gpu) for gpu in gpus],
        "cores": len(os.sched_getaffinity(0)),
        "cuda": built.get("cuda_version"),
        "cudnn": built.get("cudnn_version"),
        "versions": versions(),
        "commit": commit(),
        "date": time.strftime("%Y-%m-%d"),
    }


def matmul(repeats):
    """The reference: products of square matrices in float32, without TensorFloat too on a GPU, and in bfloat16."""
    figures = {"gflop_per_second": _product_rate(repeats)}
    if _on_gpu():
        tf.config.experimental.enable_tensor_float_32_execution(False)
        figures["without_tensorfloat_gflop_per_second"] = _product_rate(repeats)
        tf.config.experimental.enable_tensor_float_32_execution(True)
    return figures | {"bfloat16_gflop_per_second": _product_rate(repeats, tf.bfloat16)}


def _product_rate(repeats, dtype=tf.float32):
    """GFLOP per second; on a GPU the matrices are large enough to keep it busy, and float32 has TensorFloat's mantissa,
    as training has."""
    size = 8192 if _on_gpu() else 2048
    matrix = tf.cast(np.random.default_rng(0).random((size, size), np.float32), dtype)
    product = graphs.function(lambda: tf.matmul(matrix, matrix)[0])
    return 2 * size**3 / _median(lambda: product().numpy(), repeats) / 1e9


def score_matrix(repeats):
    """Evaluation of 100,000 rows against 717 classes, as many as SUN has."""
    rows, classes = 100_000, 717
    generator = np.random.default_rng(0)
    scores = generator.standard_normal((rows, classes), np.float32)
    labels = generator.integers(0, classes, rows)
    seconds = _median(lambda: metrics.evaluate(scores, labels, np.arange(645), np.arange(645, classes)), repeats)
    return {"seconds": seconds, "rows_per_second": rows / seconds}


def loader(repeats):
    """Shuffled batches of 50 maps [7, 7, 2048] float16 from a memory-mapped file, with a warm cache."""
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "maps.npy"
        benchmark = _maps(path, rows=2000)
        steps = batches.steps_per_epoch(benchmark, 50)
        read = lambda: [None for _ in batches.training(benchmark, _default(), 50, 0, "plain", 0, steps)]  # noqa: E731
        seconds = _median(read, repeats)
        size = steps * 50 * benchmark.inputs[0].nbytes
        return {"gigabytes_per_second": size / seconds / 1e9, "memcpy": _memcpy(size, repeats)}


def open_large(repeats):
    """A file of 14,340 maps of 14 x 14 x 2048 (sparse): the time to open it, and the memory for 20 batches of 50."""
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "maps.npy"
        start = time.perf_counter()
        before = _anonymous_bytes()
        benchmark = _maps(path, rows=14_340, side=14, sparse=True)
        opened = time.perf_counter() - start
        for _ in batches.training(benchmark, _default(), 50, 0, "plain", 0, 20):
            pass
        return {
            "file_gigabytes": path.stat().st_size / 1e9,
            "open_seconds": opened,
            "anonymous_megabytes": (_anonymous_bytes() - before) / 1e6,
        }


def views(repeats):
    """Two views of 128 pixels of each of 512 made-up images of 224 pixels. Measures images per second, with the changes
    that we keep for DCEN and with single rows of its Table 2, and the memory that 1,000 batches of 32 add after the
    first 50."""
    pictures = np.random.default_rng(0).integers(0, 256, (512, 224, 224, 3), np.uint8)
    benchmark = _benchmark(pictures, 85)
    rows = ("none", "crop", "flip", "grey", "jitter v1", "blur", "rotation 30", "swap 3")
    figures = {"pictures_per_second": _views_per_second(benchmark, augment.Views(), repeats)}
    for name in rows:
        settings = augment.Views(**augment.TABLE_2[name])
        figures[f"{name}, pictures_per_second"] = _views_per_second(benchmark, settings, repeats)
    return figures | {"anonymous_megabytes": _growth(_viewed(benchmark, augment.Views(), 1050)) / 1e6}


def _views_per_second(benchmark, settings, repeats):
    batch_size, steps = 32, len(benchmark.train) // 32
    return steps * batch_size / _median(lambda: [None for _ in _viewed(benchmark, settings, steps)], repeats)


def _viewed(benchmark, settings, steps):
    def prepare(picture, seed):
        seeds = (tf.random.experimental.stateless_fold_in(seed, number) for number in range(2))
        return tuple(augment.view(picture, one, settings, 128) for one in seeds)

    return batches.training(benchmark, _default(), 32, 0, "plain", 0, steps, prepare)


def loop(repeats):
    """The time that the training loop adds to a step, compared with calling the compiled step alone on one batch."""
    model, benchmark = _aspn(width=64, semantics=16, hidden=32)
    steps = 400
    batch = next(iter(batches.training(benchmark, _default(), 64, 0, "plain", 0, 1)))
    step = _step(model)
    step(batch)

    def bare():
        for _ in range(steps):
            step(batch)

    def looped(epochs):
        run = training_loop.Run(
            benchmark, _default(), lambda *_: training_loop.Verdict({}, 0.0, {}), 0, epochs=epochs, title="loop"
        )
        run.epochs(model)

    # A run traces its step once, so the difference between a long and a short run is the loop alone.
    epoch = (_median(lambda: looped(11), repeats) - _median(lambda: looped(1), repeats)) / 10
    overhead = epoch / batches.steps_per_epoch(benchmark, 64) - _median(bare, repeats) / steps
    return {"overhead_milliseconds_per_step": 1e3 * overhead}


def aspn(repeats):
    """A whole step (critic with its penalty, E and D) at 2048-d features, 1024-d embeddings, batch 64, 102 classes."""
    model, benchmark = _aspn(width=2048, semantics=1024, hidden=1800)
    batch = next(iter(batches.training(benchmark, _default(), 64, 0, "plain", 0, 1)))
    step = _step(model)
    _gpu_memory()
    seconds = _median(lambda: tf.nest.flatten(step(batch))[0].numpy(), repeats)
    operations = flops(step, batch)
    rate = _product_rate(repeats)
    return {
        "milliseconds": 1e3 * seconds,
        **_gpu_memory(),
        "gflop": operations / 1e9,
        "share_of_matmul_rate": operations / seconds / 1e9 / rate,
    }


# Attributes, classes and seen classes; 7 x 7 maps of 2048 channels and batches of 64 each.
JLAF_SIZES = {"cub": (312, 200, 150), "sun": (102, 717, 645)}


def jlaf(repeats):
    """Training steps and scoring of JLAF at the sizes of its benchmarks, and the same step when it forms the features
    of Eq. (3) for each class."""
    rate = _product_rate(repeats)
    return {name: _jlaf_figures(*sizes, rate, repeats) for name, sizes in JLAF_SIZES.items()}


def _jlaf_figures(attributes, classes, seen, rate, repeats):
    model, batch = _jlaf(attributes, classes, seen)
    step = _step(model)
    naive = graphs.function(lambda batch: _jlaf_naive_step(model, *batch))
    score = graphs.function(lambda inputs: model.score_classes(inputs, model.class_embeddings.value))
    _gpu_memory()
    seconds, memory = _median(lambda: step(batch)["class_loss"].numpy(), repeats), _gpu_memory()
    naive_seconds = _median(lambda: naive(batch).numpy(), repeats)
    return memory | {
        "milliseconds": 1e3 * seconds,
        "gflop": flops(step, batch) / 1e9,
        "share_of_matmul_rate": flops(step, batch) / seconds / 1e9 / rate,
        "naive_milliseconds": 1e3 * naive_seconds,
        "naive_gflop": flops(naive, batch) / 1e9,
        "naive_over_factored": naive_seconds / seconds,
        "images_per_second": len(batch[1]) / _median(lambda: score(batch[0]).numpy(), repeats),
    }


# Side of the maps, attributes and classes; 2048 channels and batches of 50 each.
MSDN_SIZES = {"cub": (7, 312, 200), "awa2": (7, 85, 50), "sun": (7, 102, 717), "cub 14x14": (14, 312, 200)}


def msdn(repeats):
    """Training steps and scoring of MSDN at the sizes of its benchmarks: float32 and bfloat16, each also under XLA."""
    rate, figures = _product_rate(repeats), {}
    for name, sizes in MSDN_SIZES.items():
        for precision in ("float32", "mixed_bfloat16"):
            model, batch = _msdn(*sizes, precision)
            figures[f"{name}, {precision}"] = _step_figures(model, batch, rate, repeats, jit=False)
            figures[f"{name}, {precision}, XLA"] = _step_figures(model, batch, rate, repeats, jit=True)
    return figures


_SCORED = 256  # rows at most, and no fewer than a training batch


def _step_figures(model, batch, rate, repeats, jit=False):
    step = _step(model, jit)
    score = graphs.function(lambda inputs: model.score_classes(inputs, model.class_embeddings.value), jit_compile=jit)
    _gpu_memory()
    seconds, memory = _median(lambda: step(batch)["class_loss"].numpy(), repeats), _gpu_memory()
    # Images are scored many at a time, see `batches.scoring`, and what depends only on the attributes is made once.
    many = tf.nest.map_structure(lambda inputs: tf.repeat(inputs, _SCORED // len(batch[1]), axis=0), batch[0])
    rows = tf.nest.flatten(many)[0].shape[0]
    return memory | {
        "milliseconds": 1e3 * seconds,
        "gflop": flops(step, batch) / 1e9,
        "share_of_float32_matmul_rate": flops(step, batch) / seconds / 1e9 / rate,
        "images_per_second": rows / _median(lambda: score(many).numpy(), repeats),
    }


def msdn_memory(repeats):
    """The peak memory while MSDN trains on a file of 7,057 maps of 14 x 14 x 2048 (sparse), CUB's rows."""
    with tempfile.TemporaryDirectory() as folder:
        benchmark = _maps(pathlib.Path(folder) / "maps.npy", rows=7057, side=14, sparse=True, semantics=312)
        model = MSDN.for_benchmark(benchmark, MSDN.Config())
        model.compile()
        step = _step(model)
        with _Peak() as memory:
            for batch in batches.training(benchmark, _default(), 50, 0, "plain", 0, 20):
                step(batch)
        return {"anonymous_megabytes": memory.bytes / 1e6}


# Attributes, classes and seen classes; levels of 28 x 28 x 512, 14 x 14 x 1024 and 7 x 7 x 2048, batches of 32 each.
DRMN_SIZES = {"cub": (312, 200, 150), "awa2": (85, 50, 40), "sun": (102, 717, 645)}


def drmn(repeats):
    """Training steps without SIT and scoring of DRMN at the sizes of its benchmarks, in float32 and bfloat16."""
    rate, figures = _product_rate(repeats), {}
    for name, sizes in DRMN_SIZES.items():
        for precision in ("float32", "mixed_bfloat16"):
            model, batch = _drmn(*sizes, precision, interaction=False)
            figures[f"{name}, {precision}"] = _step_figures(model, batch, rate, repeats)
    return figures


def sit(repeats):
    """DRMN at CUB's sizes with SIT: over all 9,984 tokens of a batch of 32, and over the tokens of each attribute.
    Measures the seconds per step and the peak memory of five training steps, tracing included. Then it measures the
    same for the attention of the 9,984 tokens alone, with its gradient, in blocks and in its plain form."""
    figures = {}
    for across in ("all", "pictures"):
        model, batch = _drmn(*DRMN_SIZES["cub"], "float32", interaction_across=across)
        step = _step(model)
        seconds = []
        _gpu_memory()
        with _Peak() as memory:
            for _ in range(5):
                start = time.perf_counter()
                step(batch)["class_loss"].numpy()
                seconds.append(time.perf_counter() - start)
        figures[across] = {"seconds": statistics.median(seconds), "anonymous_megabytes": memory.bytes / 1e6}
        figures[across] |= _gpu_memory()
    heads = tf.random.stateless_normal([3, 4, 9984, 256], [0, 1])  # queries, keys and values
    for name, attend in (("blocks", attend_in_blocks), ("plain", _attend)):
        figures[name] = _attention_figures(attend, heads, repeats)
    return figures


def _attend(queries, keys, values):
    return tf.matmul(tf.nn.softmax(tf.matmul(queries, keys, transpose_b=True)), values)


def _attention_figures(attend, heads, repeats):
    def slopes(heads):
        queries, keys, values = tf.unstack(heads)
        return tf.gradients(attend(queries / 16, keys, values), [queries, keys, values])

    with _Peak() as memory:
        call = graphs.function(slopes)
        seconds = _median(lambda: call(heads)[0].numpy(), repeats)
    return {"seconds": seconds, "anonymous_megabytes": memory.bytes / 1e6}


def dcen(repeats):
    """Training of DCEN on made-up images, views included. With MobileNetV2 at 128 pixels and random weights: images per
    second, with and without Eq. (5), whose g looks at another view. With a small backbone at 32 pixels: the memory that
    1,000 steps add after the first 50."""
    figures, steps = {}, 10
    for name, lambda1 in (("pictures_per_second", 0.1), ("without_instances_pictures_per_second", 0.0)):
        take, size = _dcen(steps * (repeats + 1), backbone="mobilenetv2", image_size=128, lambda1=lambda1)
        figures[name] = size * steps / _median(lambda: [next(take) for _ in range(steps)], repeats)  # noqa: B023
    take, _ = _dcen(1050, image_size=32, feature_dim=256, hidden=256)
    return figures | {"anonymous_megabytes": _growth(take) / 1e6}


def dcen_large(repeats):
    """DCEN at 224 pixels with random weights, views included: images per second."""
    figures, steps = {}, 10
    for backbone in ("mobilenetv2", "resnet50"):
        _gpu_memory()
        take, size = _dcen(steps * (repeats + 1), 256, backbone=backbone, image_size=224, lambda1=0.1)
        seconds = _median(lambda: [next(take) for _ in range(steps)], repeats)  # noqa: B023
        figures[backbone] = _gpu_memory() | {"pictures_per_second": size * steps / seconds}
    return figures


def prepare(repeats):
    """Pooled features and maps of MobileNetV2 at 224 pixels from 512 JPEG files of 500 x 375: images per second."""
    del repeats  # once is long enough
    generator = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        root = pathlib.Path(folder)
        for number in range(512):
            (root / f"class {number % 2}").mkdir(exist_ok=True)
            coarse = generator.integers(0, 256, (12, 16, 3), np.uint8)
            Image.fromarray(coarse).resize((500, 375)).save(root / f"class {number % 2}" / f"{number}.jpg")
        (root / "classes.csv").write_text("class,a,b\nclass 0,0,1\nclass 1,1,0\n")
        extractor = extract.Extractor("mobilenetv2", None, 224, ("pooled", "maps"))
        start = time.perf_counter()
        extract.extract(extractor, benchmarks.pictures(folder), "made_up", batch_size=32)
        return {"pictures_per_second": 512 / (time.perf_counter() - start)}


def _dcen(steps, side=147, **overrides):
    """An iterator that trains one step at a time, and the number of images per step."""
    pictures = np.random.default_rng(0).integers(0, 256, (512, side, side, 3), np.uint8)
    benchmark = _benchmark(pictures, 85)
    config = DCEN.Config(**presets.settings("v1", "dcen") | {"batch_size": 32, "queue_size": 256} | overrides)
    model = DCEN.for_benchmark(benchmark, config)
    model.compile()
    step, size = _step(model), config.batch_size
    ready = batches.training(benchmark, _default(), size, 0, "plain", 0, steps, model.prepare)
    return (step(batch)["semantic_loss"].numpy() for batch in ready), size


def exported(repeats):
    """Exports for 2048 pooled features and embeddings of width 312: 256 rows against 200 classes given at call time,
    compared with the bare product of the same sizes, and the peak memory with 20,000 classes."""
    generator, figures = np.random.default_rng(0), {}
    for method, model in (("eszsl", _eszsl(2048, 312)), ("aspn", _aspn(2048, 312, 1800)[0])):
        features = tf.constant(generator.random((256, 2048), np.float32))
        few, many = (tf.constant(generator.random((number, 312), np.float32)) for number in (200, 20_000))
        with tempfile.TemporaryDirectory() as folder:
            start = time.perf_counter()
            export.save(folder, export.endpoints(model, 0.1))
            saved = time.perf_counter() - start
            size = sum(path.stat().st_size for path in pathlib.Path(folder).rglob("*") if path.is_file())
            loaded = tf.saved_model.load(folder)
            score = functools.partial(loaded.score_classes, features)
            seconds = _median(lambda: score(few, tf.zeros([200], bool))["scores"].numpy(), repeats)  # noqa: B023
            between = tf.constant(generator.random((2048, 312), np.float32))
            product = graphs.function(lambda: tf.matmul(features @ between, few, transpose_b=True))  # noqa: B023
            with _Peak() as memory:
                score(many, tf.zeros([20_000], bool))["scores"].numpy()
        figures[method] = {
            "save_seconds": saved,
            "megabytes": size / 1e6,
            "rows_per_second": 256 / seconds,
            "bare_product_over_endpoint": _median(lambda: product().numpy(), repeats) / seconds,  # noqa: B023
            "anonymous_megabytes_at_20000_classes": memory.bytes / 1e6,
        }
    return figures


def serving(repeats, requests=1000, clients=8):
    """Requests of one row of 2048 features each, over HTTP on this machine; each client sends one after another."""
    from zslkeras.serving import rest  # imported here because it needs the extra [serve]

    with tempfile.TemporaryDirectory() as folder:
        export.save(folder, export.endpoints(_eszsl(2048, 312), 0.1))
        said, ready = [], threading.Event()
        say = lambda line: (said.append(line), ready.set())  # noqa: E731
        arguments = (tf.saved_model.load(folder), "model", "127.0.0.1", 0, rest.Limits(), say)
        threading.Thread(target=rest.serve, args=arguments, daemon=True).start()
        ready.wait()
        host = said[0].split("/")[2]
        row = np.random.default_rng(0).random((1, 2048)).round(4).tolist()
        body = json.dumps({"signature_name": "serve", "instances": row})
        start = time.perf_counter()
        with concurrent.futures.ThreadPoolExecutor(clients) as pool:
            asked = list(pool.map(lambda _: _ask(host, body, requests // clients), range(clients)))
        wall = time.perf_counter() - start
    seconds = sorted(second for times, _ in asked for second in times)
    return {
        "requests": len(seconds),
        "failed": sum(failed for _, failed in asked),
        "requests_per_second": len(seconds) / wall,
        "p50_milliseconds": 1e3 * seconds[len(seconds) // 2],
        "p99_milliseconds": 1e3 * seconds[int(0.99 * len(seconds))],
    }


def _ask(host, body, times):
    """The seconds of each of so many requests, and how many failed."""
    seconds, failed, connection = [], 0, http.client.HTTPConnection(host, timeout=60)
    for _ in range(times):
        start = time.perf_counter()
        connection.request("POST", "/v1/models/model:predict", body)
        response = connection.getresponse()
        response.read()
        seconds.append(time.perf_counter() - start)
        failed += response.status != 200
    connection.close()
    return seconds, failed


def determinism(repeats):
    """The step of `aspn` with op determinism, as in experiments.run. It cannot be turned off, so this comes last."""
    before = aspn(repeats)["milliseconds"]
    tf.config.experimental.enable_op_determinism()
    after = aspn(repeats)["milliseconds"]
    return {"milliseconds": before, "deterministic_milliseconds": after, "cost": after / before - 1}


def _median(call, repeats):
    call()
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


def _memcpy(size, repeats):
    source = np.ones(size, np.uint8)
    return {"gigabytes_per_second": size / _median(source.copy, repeats) / 1e9}


def _on_gpu():
    return bool(tf.config.list_physical_devices("GPU"))


def _gpu_memory():
    """The most memory of the GPU that tensors took since this was asked before; nothing without a GPU."""
    if not _on_gpu():
        return {}
    peak = tf.config.experimental.get_memory_info("GPU:0")["peak"]
    tf.config.experimental.reset_memory_stats("GPU:0")
    return {"gpu_megabytes": peak / 1e6}


def _default():
    return strategies.get_strategy()


def _step(model, jit=False):
    """The training step of a model, as the loop runs it on a batch."""
    return graphs.function(lambda batch: _default().run(model.train_step, args=(batch,)), jit_compile=jit)


def _aspn(width, semantics, hidden):
    benchmark = _benchmark(np.random.default_rng(0).random((64 * 60, width), np.float32), semantics)
    model = ASPN.for_benchmark(benchmark, ASPN.Config(hidden=hidden))
    model.compile()
    return model, benchmark


def _eszsl(width, semantics):
    """A model whose two factors are random."""
    generator = np.random.default_rng(0)
    benchmark = _benchmark(generator.random((300, width), np.float32), semantics)
    model = ESZSL.for_benchmark(benchmark, ESZSL.Config())
    for factor in (model.to_rank, model.from_rank):
        factor.assign(generator.random(factor.shape, np.float32))
    return model


def _jlaf(attributes, classes, seen):
    """A model and a batch of random maps, float16 as they are stored."""
    maps = np.random.default_rng(0).random((64, 7, 7, 2048), np.float32).astype(np.float16)
    benchmark = _benchmark(maps, attributes, classes, seen)
    model = JLAF.for_benchmark(benchmark, JLAF.Config())
    model.compile()
    return model, (tf.constant(maps), tf.constant(benchmark.labels))


def _jlaf_naive_step(model, maps, labels):
    """JLAF's step as the paper writes it: a feature for each class [B, C, F], which is then decoded."""
    config, classes = model.config, model.class_embeddings.value
    seen = tf.gather(classes, model.seen_classes)
    regions = l2_normalize(tf.reshape(tf.cast(maps, tf.float32), [maps.shape[0], -1, maps.shape[3]]))
    with tf.GradientTape() as tape:
        latents = model.encode(seen)
        attention = tf.nn.softmax(model.sharpness * tf.matmul(latents, regions, transpose_b=True))
        predicted = model.decoder(tf.matmul(attention, regions))
        scores = tf.reduce_sum(l2_normalize(predicted) * l2_normalize(seen), axis=2)
        loss = class_loss(scores, labels, config.tau)
        loss += config.alpha * manifold_loss(latents, seen, config.gram, config.reduction)
        reconstructed = model.decoder(model.encode(classes))
        loss += config.eta * reconstruction_loss(classes, reconstructed, config.reduction)
    model.minimize(tape, loss, model.optimizer, model.trainable_variables)
    return loss


def _msdn(side, attributes, classes, precision):
    """A model and a batch of random maps, float16 as they are stored."""
    generator = np.random.default_rng(0)
    maps = generator.random((50, side, side, 2048), np.float32).astype(np.float16)
    benchmark = _benchmark(maps, attributes, classes, vectors=generator.standard_normal((attributes, 300)))
    keras.config.set_dtype_policy(precision)
    try:
        model = MSDN.for_benchmark(benchmark, MSDN.Config())
    finally:
        keras.config.set_dtype_policy("float32")
    model.compile()
    return model, (tf.constant(maps), tf.constant(benchmark.labels))


def _maps(path, rows, side=7, sparse=False, semantics=85):
    """A benchmark over a map file made for the purpose; sparse files have a size but no content."""
    shape = (rows, side, side, 2048)
    if sparse:
        with open(path, "wb") as file:
            np.lib.format.write_array_header_1_0(file, {"descr": "<f2", "fortran_order": False, "shape": shape})
            file.truncate(file.tell() + 2 * int(np.prod(shape)))
    else:
        np.save(path, np.random.default_rng(0).random(shape, np.float32).astype(np.float16))
    return _benchmark(np.load(path, mmap_mode="r"), semantics)


def _benchmark(inputs, semantics, classes=102, seen=None, vectors=None):
    generator = np.random.default_rng(1)
    rows, seen = len(inputs), seen or classes - 20
    labels = np.arange(rows, dtype=np.int32) % seen
    return Benchmark(
        name="made up",
        source="made up",
        kind="images" if inputs.dtype == np.uint8 else "maps" if inputs.ndim == 4 else "features",
        inputs=inputs,
        labels=labels,
        class_embeddings=generator.random((classes, semantics), np.float32),
        class_names=tuple(f"class {c}" for c in range(classes)),
        seen_classes=np.arange(seen),
        unseen_classes=np.arange(seen, classes),
        train=np.arange(rows),
        test_seen=np.arange(0),
        test_unseen=np.arange(0),
        attribute_vectors=vectors,
        finite=True,
    )


def _drmn(attributes, classes, seen, precision, **overrides):
    """A model and a batch of random levels, float16 as they are stored."""
    generator = np.random.default_rng(0)
    shapes = (28, 28, 512), (14, 14, 1024), (7, 7, 2048)
    embeddings = generator.random((classes, attributes), np.float32)
    keras.config.set_dtype_policy(precision)
    try:
        model = DRMN(DRMN.Config(**overrides), shapes, embeddings, np.arange(classes) < seen)
    finally:
        keras.config.set_dtype_policy("float32")
    model.compile()
    rows = model.config.batch_size
    levels = (generator.random((rows, *shape), np.float32).astype(np.float16) for shape in shapes)
    return model, (tuple(map(tf.constant, levels)), tf.constant(np.arange(rows) % seen))


class _Peak:
    """The peak of the memory of this process inside a `with`; see `_anonymous_bytes`."""

    def __enter__(self):
        self.bytes, self._done = _anonymous_bytes(), threading.Event()
        self._watcher = threading.Thread(target=self._watch)
        self._watcher.start()
        return self

    def __exit__(self, *exception):
        self._done.set()
        self._watcher.join()

    def _watch(self):
        while not self._done.wait(0.005):
            self.bytes = max(self.bytes, _anonymous_bytes())


def _growth(taken):
    """The memory that an iterator of more than 50 items adds to this process after its first 50."""
    for step, _ in enumerate(taken):
        if step == 50:
            before = _anonymous_bytes()
    return _anonymous_bytes() - before


def _anonymous_bytes():
    """Memory that is this process's own; pages of mapped files do not count."""
    status = pathlib.Path("/proc/self/status").read_text()
    return 1024 * int(next(line for line in status.splitlines() if line.startswith("RssAnon")).split()[1])
