"""JSON as a damaged disk, a careless hand or another program leaves it."""

import json
import re

from zslkeras.errors import InputError

_WRONG = ([1], {}, {"x": [None]}, "x", 1.5, -1, None, True)


def refusals(content, opening):
    """Opens each damaged variant of an object, and returns (what was done to it, the sentence) of those that fail.

    A name is gone, or has a value of another kind. What fails has to fail in one sentence that says what to do.
    """
    variants = {f"no {name}": {key: content[key] for key in content if key != name} for name in content}
    variants |= {f"{name}: {wrong}": content | {name: wrong} for name in content for wrong in _WRONG}
    refused = {}
    for what, variant in variants.items():
        try:
            opening(variant)
        except InputError as error:
            refused[what] = str(error)
            assert re.fullmatch(r".{,800}", refused[what]) and re.search("wanted|did you mean|damaged|fit", str(error))
        except Exception as error:
            raise AssertionError(f"{what}: {type(error).__name__}: {error}") from error
    return refused


def refusals_of_file(path, opening):
    """`refusals` for the object in a JSON file, which is put back in the end."""
    original = path.read_text()

    def written(variant):
        path.write_text(json.dumps(variant))
        opening()

    try:
        return refusals(json.loads(original), written)
    finally:
        path.write_text(original)
