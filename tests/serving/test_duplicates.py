"""Which new classes have the row of an earlier one: as by comparing each with each, in a time many classes allow."""

import time

import numpy as np

from zslkeras.serving import candidates
from zslkeras.serving.candidates import Classes


def by_pairs(own, names, values):
    """The same by its definition."""
    rows = dict(zip(own.names, own.embeddings, strict=True))
    for name in names:
        rows.pop(name, None)
    for name, row in zip(names, values, strict=True):
        same = [other for other, one in rows.items() if np.abs(one.astype(np.float64) - row).max() <= 1e-6]
        if same and name not in own.names:
            yield name, same[0]
        rows[name] = row


def test_as_by_comparing_each_with_each():
    generator = np.random.default_rng(0)
    for _ in range(50):
        few = generator.random((4, 5)).astype(np.float32)
        embeddings = few[generator.integers(0, 4, 6)] + generator.choice([0, 4e-7, 3e-6], (6, 1)).astype(np.float32)
        values = few[generator.integers(0, 4, 8)] + generator.choice([0, 4e-7, 3e-6], (8, 1)).astype(np.float32)
        own = Classes(tuple("abcdef"), embeddings, np.ones(6, bool))
        names = ("x", "b", "y", "z", "d", "u", "v", "w")
        assert list(candidates._duplicates(own, names, values)) == list(by_pairs(own, names, values))


def test_twenty_thousand_classes_take_seconds():
    values = np.random.default_rng(0).random((20_000, 64)).astype(np.float32)
    values[15_000:] = values[0]
    own = Classes(("a",), values[:1] + 1, np.ones(1, bool))
    began = time.monotonic()
    found = list(candidates._duplicates(own, tuple(map(str, range(20_000))), values))
    assert len(found) == 5_000 and found[0] == ("15000", "0") and time.monotonic() - began < 20
