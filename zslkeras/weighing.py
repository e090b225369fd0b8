"""How much words count beside attributes: as much as is best for the closed form on validation classes.

The model `prototypes` takes seconds, and its AUSUC on the published validation classes chooses, as it chooses states
and models. Weight 0 is among the weights: words that bring nothing are left out, and the model is one of attributes.
"""

import dataclasses

from zslkeras import cache, protocol
from zslkeras.errors import InputError
from zslkeras.evaluation import tables
from zslkeras.models import MODELS

WEIGHTS = (0.0, 0.25, 0.5, 1.0)  # see docs/notes/words.md
_BY = "prototypes"


def chosen(data, say=print):
    """Data whose words beside attributes have a weight; any other data as they are.

    Args:
        data: a protocol.Data.
        say: called with a sentence about what was chosen.
    """
    if data.options.get("embedding") != "both" or data.options.get("text_weight") is not None:
        return data
    data.load("tune", "images")  # refuses whatever is wrong with the words
    areas = {weight: _area(_with(data, text_weight=weight)) for weight in WEIGHTS}
    best = max(areas, key=areas.get)
    shown = ", ".join(f"{tables.percent(area)} at {weight:g}" for weight, area in areas.items())
    what = f"text weighs {best:g} beside attributes" if best else "words are left out beside attributes"
    say(f"note: {what}, which is best for the {_BY} on validation classes: AUSUC {shown}")
    return _with(data, text_weight=best) if best else _with(data, embedding="attributes")


def _area(data):
    try:
        digest = data.load("tune", "features").digest
    except InputError as error:
        got = f"got none, and it cannot be chosen without pooled features ({error})"
        raise InputError(f"text_weight: {got}; wanted a number") from None
    kept = cache.of_this_code("text_weights", digest)
    experiment = protocol.Experiment(_BY, MODELS[_BY].Config(), data, out=kept, logs=False)
    return protocol.select(experiment, 0).area


def _with(data, **options):
    return dataclasses.replace(data, options=data.options | options)
