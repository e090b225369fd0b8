"""The embedded benchmark: 50 classes of drawn shapes, each a combination of 33 named attributes.

A class is a row of attribute values in 0..1, from which its images are drawn. `form` weights blend the outlines of two
forms, `hue` weights two neighbouring colours, `texture` weights two patterns; `count` weights are the shares of images
with one, two or three objects; every other attribute is a strength. The form, the hue and the texture with the largest
weights name the class. No two classes share all three, and stage tune trains on classes with each of them, so an unseen
class is a new combination of known parts.

An image varies around its class (`JITTER`), and in ways that no attribute describes: place, strength and direction of
light, tint of the whole and of the background, clutter behind and in front, noise.

Images depend on VERSION and draw only, and are the same to the byte on any machine: pixels are computed with operations
that IEEE 754 rounds correctly (+ - * /, sqrt, min, max, floor), and sines are computed once per image and rounded.
"""

import itertools
import pathlib

import numpy as np

from zslkeras import atomic
from zslkeras.benchmarks import filters
from zslkeras.benchmarks.benchmark import Benchmark
from zslkeras.errors import InputError, brief

VERSION = 1  # any change of an image, class or split needs a new version, and every published row measured again

GROUPS = {
    "form": ("circle", "square", "triangle", "star", "ring", "cross"),
    "hue": ("red", "yellow", "green", "cyan", "blue", "magenta"),  # in the order of the colour circle
    "texture": ("plain", "striped", "dotted", "checked"),
    "count": ("single", "pair", "trio"),
    "surface": ("bright", "vivid", "finely textured", "texture turned"),
    "build": ("large", "elongated", "tilted"),
    "edge": ("outlined", "outline dark", "shadow"),
    "background": ("background light", "background warm", "background graded", "background grainy"),
}
ATTRIBUTES = tuple(itertools.chain.from_iterable(GROUPS.values()))
LEAST_SHARE = {"form": 0.75, "hue": 0.65, "texture": 0.7, "count": 0.8}  # of the main value, in groups that sum to 1
NAMING = "hue", "texture", "form"
VECTOR_DIM = 24

ROLES = {"train": 30, "validation": 10, "unseen": 10}  # classes
PICTURES = 50, 70  # least and most images of a class
TEST_SHARE = 0.2
SIDE = filters.SIDE

JITTER = 0.3  # how far an image's value may be from its class's
STICKS_BEHIND, STICKS_IN_FRONT = 6, 2
CORNERS = np.array([[1, 0, 0], [1, 1, 0], [0, 1, 0], [0, 1, 1], [0, 0, 1], [1, 0, 1]], np.float32)  # the hues in RGB
PLACES = np.array(  # (x, y) of the objects of a single, a pair and a trio
    [[(32, 32), (0, 0), (0, 0)], [(18, 32), (46, 32), (0, 0)], [(18, 20), (46, 20), (32, 46)]], np.float32
)
# The normals of a star's five lines.
PENTAGRAM = (0, 1), (0.951057, 0.309017), (0.587785, -0.809017), (-0.587785, -0.809017), (-0.951057, 0.309017)
Y, X = np.mgrid[:SIDE, :SIDE].astype(np.float32)

FILES = {
    "images": ["pictures", "masks"],
    "features": ["features"],
    "maps": ["maps"],
    "levels": ["level-fine", "level-middle", "level-coarse"],
}


def read(name, root, inputs, *, draw=0):
    """Stage "final", drawn on first use and then read from `<root>/shapes-v<VERSION>/draw<draw>/`.

    Args:
        name: of the benchmark, "shapes".
        root: the data root.
        inputs: "images" uint8 [N, 64, 64, 3], or what `filters` makes of them: "features", "maps" or "levels".
        draw: 0 is the benchmark; another number draws other classes, other images and another split.

    Returns:
        A Benchmark.
    """
    embeddings, names, roles, sizes = class_table(draw)
    arrays = _stored(root, draw, inputs)
    labels = np.repeat(np.arange(len(names), dtype=np.int32), sizes)
    place_in_class = np.concatenate([np.arange(size) for size in sizes])
    # The images of a class are independent draws, so its first fifth is as good as any other.
    held_out = place_in_class < np.round(TEST_SHARE * sizes)[labels]
    unseen = roles[labels] == "unseen"
    return Benchmark(
        name=name.lower(),
        source=str(_folder(root, draw)),
        kind=inputs,
        inputs=arrays if inputs == "levels" else arrays[0],
        labels=labels,
        class_embeddings=embeddings,
        class_names=names,
        seen_classes=np.flatnonzero(roles != "unseen"),
        unseen_classes=np.flatnonzero(roles == "unseen"),
        train=np.flatnonzero(~unseen & ~held_out),
        test_seen=np.flatnonzero(~unseen & held_out),
        test_unseen=np.flatnonzero(unseen),
        attribute_names=ATTRIBUTES,
        attribute_vectors=_attribute_vectors(),
        validation_classes=np.flatnonzero(roles == "validation"),
        features=None if inputs == "images" else "filters",
        finite=True,  # every filter's answer lies in 0..1
    )


def object_masks(root, draw=0):
    """Where the objects are, bool [N, 64, 64] in the row order of `read`: with their outline, without their shadow."""
    return _stored(root, draw, "images")[1]


def class_table(draw=0):
    """The classes: embeddings [50, 33], names, roles (keys of ROLES) [50] and numbers of images [50]."""
    if not isinstance(draw, int) or draw < 0:
        raise InputError(f"draw: got {draw!r}; wanted 0, 1, 2, ...")
    generator = _generator(draw, 0)
    number = sum(ROLES.values())
    combinations = np.array(list(itertools.product(*(range(len(GROUPS[group])) for group in NAMING))))
    while True:
        chosen = combinations[np.argsort(generator.random(len(combinations)), kind="stable")[:number]]
        parts = zip(chosen[: ROLES["train"]].T, NAMING, strict=True)
        trained = [np.bincount(main, minlength=len(GROUPS[group])) for main, group in parts]
        if min(counts.min() for counts in trained) >= 3:  # three classes to learn each form, hue and texture from
            break
    main_of = dict(zip(NAMING, chosen.T, strict=True), count=generator.integers(len(GROUPS["count"]), size=number))
    blocks = []
    for group, members in GROUPS.items():
        block = generator.random((number, len(members)))
        if group in LEAST_SHARE:
            # A hue mixes only with its neighbours on the circle, any other value with all of its group.
            steps = np.array([1, len(members) - 1]) if group == "hue" else np.arange(1, len(members))
            other = (main_of[group] + steps[generator.integers(len(steps), size=number)]) % len(members)
            share = 1 - (1 - LEAST_SHARE[group]) * block[:, :1]
            identity = np.eye(len(members))
            block = share * identity[main_of[group]] + (1 - share) * identity[other]
        blocks.append(block)
    embeddings = np.round(np.concatenate(blocks, axis=1), 3).astype(np.float32)
    names = ["-".join(GROUPS[group][i] for group, i in zip(NAMING, row, strict=True)) for row in chosen]
    roles = np.repeat(list(ROLES), list(ROLES.values()))
    sizes = generator.integers(PICTURES[0], PICTURES[1] + 1, size=number)
    order = np.argsort(names)  # so that an id says nothing about the role
    return embeddings[order], tuple(names[i] for i in order), roles[order], sizes[order]


def _attribute_vectors():
    """[33, VECTOR_DIM], of length one: a direction that the group's attributes share, plus one of each attribute."""
    generator = np.random.Generator(np.random.PCG64(VERSION))
    shared = np.repeat(generator.random((len(GROUPS), VECTOR_DIM)) - 0.5, [len(g) for g in GROUPS.values()], axis=0)
    vectors = shared + generator.random((len(ATTRIBUTES), VECTOR_DIM)) - 0.5
    return np.round(vectors / np.sqrt((vectors**2).sum(axis=1, keepdims=True)), 6).astype(np.float32)


def draw_class(embedding, size, generator):
    """Draws `size` images of one class.

    Args:
        embedding: [33], the class's attribute values.
        size: how many images.
        generator: a numpy Generator.

    Returns:
        Images uint8 [size, 64, 64, 3] and object masks bool [size, 64, 64].
    """
    values = _picture_values(embedding, size, generator)
    distance = _objects(values, generator)
    whole = _cover(distance)
    inside = _cover(distance + 2.5 * values["outlined"])
    shadow = np.zeros_like(whole)
    shadow[:, 5:, 4:] = whole[:, :-5, :-4]

    canvas = _background(values, generator)
    for _ in range(STICKS_BEHIND):
        canvas = _blend(canvas, _uniform(generator, 0, 1, size, 3), _stick(size, generator))
    canvas = canvas * (1 - 0.6 * shadow * values["shadow"])[..., None]
    canvas = _blend(canvas, 0.95 - 0.9 * values["outline dark"][..., None], whole)
    canvas = _blend(canvas, _paint(values, generator), inside)
    for _ in range(STICKS_IN_FRONT):
        stick = _stick(size, generator)
        canvas = _blend(canvas, _uniform(generator, 0, 1, size, 3), stick)
        whole = whole * (1 - stick)

    light = _uniform(generator, 0.75, 1.15, size) + _slope(generator, 0.25, size)
    tint = _uniform(generator, 0.92, 1.08, size, 3)
    noise = generator.integers(0, 256, size=canvas.shape, dtype=np.uint8) / np.float32(255) - np.float32(0.5)
    canvas = canvas * light[..., None] * tint + 0.12 * noise
    return np.floor(np.clip(canvas, 0, 1) * 255 + 0.5).astype(np.uint8), whole > 0.5


def _picture_values(embedding, size, generator):
    """Attribute name -> [size, 1, 1]: the class's values with jitter, in mixtures that again sum to one."""
    noise = generator.random((size, len(embedding))) + generator.random((size, len(embedding))) - 1
    values = np.clip(embedding + JITTER * noise, 0, 1)
    for group in LEAST_SHARE:
        columns = [ATTRIBUTES.index(name) for name in GROUPS[group]]
        mixture = np.where(embedding[columns] > 0, values[:, columns], 0)
        values[:, columns] = mixture / mixture.sum(axis=1, keepdims=True)
    return {name: column.astype(np.float32)[:, None, None] for name, column in zip(ATTRIBUTES, values.T, strict=True)}


def _objects(values, generator):
    """Signed distance in pixels from the outline of the one to three objects, negative inside, [n, 64, 64]."""
    size = len(values["single"])
    chance = _uniform(generator, 0, 1, size)
    more_than_one, more_than_two = chance > values["single"], chance > values["single"] + values["pair"]
    number = (more_than_one.astype(int) + more_than_two)[:, 0, 0]
    radius = (11 + 9 * values["large"]) * np.array([1, 0.75, 0.6], np.float32)[number][:, None, None]
    stretch = 1 + 0.5 * values["elongated"]
    cosine, sine = _direction(60 * values["tilted"] + _uniform(generator, -8, 8, size))
    nearest = np.full((size, SIDE, SIDE), SIDE, np.float32)
    for slot in range(PLACES.shape[1]):
        shift = _uniform(generator, -6, 6, size, 2)[:, 0, 0]
        rows = np.flatnonzero(number >= slot)
        x, y = (PLACES[number[rows], slot] + shift[rows]).T[:, :, None, None]
        x, y = X - x, Y - y
        along = (x * cosine[rows] + y * sine[rows]) / (radius * stretch)[rows]
        across = (y * cosine[rows] - x * sine[rows]) / (radius / stretch)[rows]
        unit = sum(values[form][rows] * FORMS[form](along, across) for form in FORMS if values[form].any())
        nearest[rows] = np.minimum(nearest[rows], unit * radius[rows])
    return nearest


def _star(x, y):
    # Five lines bound a pentagram. A point in it is beyond at most one of them, so the second largest distance decides.
    largest = second = np.full_like(x, -np.inf)
    for normal in PENTAGRAM:
        line = x * normal[0] + y * normal[1]
        second = np.maximum(second, np.minimum(largest, line))
        largest = np.maximum(largest, line)
    return second - 0.36


def _cross(x, y):
    x, y = np.abs(x), np.abs(y)
    return np.minimum(np.maximum(x - 1, y - 0.33), np.maximum(x - 0.33, y - 1))


# Signed distance to each form of radius about one, y pointing down.
FORMS = {
    "circle": lambda x, y: np.sqrt(x * x + y * y) - 0.9,
    "square": lambda x, y: np.maximum(np.abs(x), np.abs(y)) - 0.8,
    "triangle": lambda x, y: np.maximum(y, 0.866025 * np.abs(x) - 0.5 * y) - 0.55,
    "star": _star,
    "ring": lambda x, y: np.abs(np.sqrt(x * x + y * y) - 0.7) - 0.25,
    "cross": _cross,
}


def _paint(values, generator):
    """The objects' colour and texture, [n, 64, 64, 3]."""
    size = len(values["bright"])
    cosine, sine = _direction(90 * values["texture turned"] + _uniform(generator, -8, 8, size))
    period = 12 - 7 * values["finely textured"]
    along = (X * cosine + Y * sine) / period + _uniform(generator, 0, 1, size)
    across = (Y * cosine - X * sine) / period + _uniform(generator, 0, 1, size)
    # Distance from the middle of a cell, -0.5..0.5 in units of a period.
    along, across = along - np.floor(along) - 0.5, across - np.floor(across) - 0.5
    sharpness = 0.5 * period
    patterns = {
        "striped": 0.25 - np.abs(along),
        "dotted": 0.34 - np.sqrt(along * along + across * across),
        "checked": np.minimum(np.maximum(along, across), -np.minimum(along, across)),
    }
    ink = sum(values[name] * _cover(-sharpness * pattern) for name, pattern in patterns.items())
    hue = sum(values[name][..., None] * corner for name, corner in zip(GROUPS["hue"], CORNERS, strict=True))
    vivid, bright = 0.5 + 0.5 * values["vivid"][..., None], 0.45 + 0.55 * values["bright"][..., None]
    return bright * (1 - vivid * (1 - hue)) * (1 - 0.75 * ink)[..., None]


def _background(values, generator):
    """[n, 64, 64, 3]."""
    size = len(values["large"])
    grain = generator.random((size, SIDE // 4, SIDE // 4), dtype=np.float32) - np.float32(0.5)
    grain = np.repeat(np.repeat(grain, 4, axis=1), 4, axis=2)
    grey = 0.15 + 0.7 * values["background light"] + 0.4 * values["background grainy"] * grain
    grey = grey + 0.6 * values["background graded"] * (Y / SIDE - 0.5)
    warmth = np.array([0.2, 0, -0.2], np.float32) * (2 * values["background warm"][..., None] - 1)
    change = _uniform(generator, -0.25, 0.25, size, 1) + _uniform(generator, -0.15, 0.15, size, 3)
    return grey[..., None] + warmth + change


def _stick(size, generator):
    """Clutter: the cover of one stick per image, anywhere, [n, 64, 64]."""
    place = _uniform(generator, 0, SIDE, size, 2)
    x, y = X - place[..., 0], Y - place[..., 1]
    cosine, sine = _direction(_uniform(generator, 0, 180, size))
    length = _uniform(generator, 4, 12, size)
    return _cover(np.maximum(np.abs(x * cosine + y * sine) - length, np.abs(y * cosine - x * sine) - 1.2))


def _slope(generator, height, size):
    """A plane that is zero in the middle and rises by `height` to a border, in any direction, [n, 64, 64]."""
    cosine, sine = _direction(_uniform(generator, 0, 360, size))
    return height * ((X / SIDE - 0.5) * cosine + (Y / SIDE - 0.5) * sine) * 2


def _cover(distance):
    """Share of a pixel that is inside an outline at this signed distance."""
    return np.clip(0.5 - distance, 0, 1)


def _blend(canvas, colour, cover):
    return canvas + cover[..., None] * (colour - canvas)


def _direction(degrees):
    # Rounded, because the last bit of a sine differs between machines.
    radians = degrees.astype(np.float64) * (np.pi / 180)
    return np.round(np.cos(radians), 6).astype(np.float32), np.round(np.sin(radians), 6).astype(np.float32)


def _uniform(generator, low, high, size, *channels):
    """[size, 1, 1] or [size, 1, 1, channels], one value per image."""
    return low + (high - low) * generator.random((size, 1, 1, *channels), dtype=np.float32)


def _generator(draw, stream):
    return np.random.Generator(np.random.PCG64([VERSION, draw, stream]))


def _folder(root, draw):
    return pathlib.Path(root) / f"shapes-v{VERSION}" / f"draw{draw}"


def _stored(root, draw, inputs):
    """Memory maps of the files that FILES lists for this kind of input; if one is missing, all are made."""
    folder = _folder(root, draw)
    paths = [folder / f"{name}.npy" for name in FILES[inputs]]
    try:
        if not all(path.exists() for path in paths):
            folder.mkdir(parents=True, exist_ok=True)  # before the work, so that an unwritable root costs no time
            arrays = _draw(draw) if inputs == "images" else _filter(_stored(root, draw, "images")[0], inputs)
            for path, array in zip(paths, arrays, strict=True):
                with atomic.replacing(path) as draft, open(draft, "wb") as file:
                    np.save(file, array, allow_pickle=False)
    except OSError as error:
        reason = error.strerror or error
        raise InputError(f"{folder}: cannot be written ({reason}); wanted a data root to write to") from error
    return tuple(_open(path) for path in paths)


def _draw(draw):
    embeddings, _, _, sizes = class_table(draw)
    classes = [draw_class(*job, _generator(draw, 1 + i)) for i, job in enumerate(zip(embeddings, sizes, strict=True))]
    return [np.concatenate(parts) for parts in zip(*classes, strict=True)]


def _filter(pictures, inputs):
    if inputs == "features":
        return [filters.pooled(pictures)]
    answers = filters.levels(pictures) if inputs == "levels" else [filters.maps(pictures)]
    return [answer.astype(np.float16) for answer in answers]


def _open(path):
    try:
        return np.lib.format.open_memmap(path, mode="r")
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: damaged ({brief(error)}); delete it, and it is made again") from error
