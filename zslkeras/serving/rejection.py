"""Which images show none of the listed classes. `evaluation.confidence` has the rule."""

import numpy as np

from zslkeras.errors import InputError
from zslkeras.evaluation import confidence, metrics
from zslkeras.serving.candidates import Classes

NONE = "none of these"


class Rejection:
    """Turns the answers of a model for `asked` classes into those for the listed classes, and says which it rejects.

    Attributes:
        rate: the share of the images of listed classes that may be rejected.
        asked: Classes: the listed ones, and after them the trained classes that are not among them.
    """

    def __init__(self, rate, known, own, listed, gamma):
        """
        Args:
            rate: as above.
            known: a Confidence on validation rows, or None.
            own, listed: Classes of the model, and those of the list.
            gamma: of the model.
        """
        if isinstance(rate, bool) or not isinstance(rate, int | float | np.number) or not 0 < rate < 1:
            raise InputError(f"reject: got {rate!r}; wanted the share of images to lose, above 0 and below 1")
        known = required(known, f"reject: got {rate:g}, and")
        places = {name: place for place, name in enumerate(listed.names)}
        trained, lacking = [], []
        for place in np.flatnonzero(own.seen):
            there = places.get(own.names[place])
            if there is None or not _is_same(own, place, listed, there):
                there = len(listed.names) + len(lacking)
                lacking.append(place)
            trained.append(there)
        self.rate = rate
        self.asked, self._listed, self._trained, self._gamma = listed, listed, trained, gamma
        if lacking:
            shifts = listed.shifts
            self.asked = Classes(
                (*listed.names, *(own.names[place] for place in lacking)),
                np.concatenate([listed.embeddings, own.embeddings[lacking]]),
                np.concatenate([listed.seen, own.seen[lacking]]),
                None if shifts is None else np.pad(shifts, ((0, len(lacking)), (0, 0))),
            )
        seen = np.count_nonzero(listed.seen)
        self._warmth, self._threshold = known.warmth, known.threshold(rate, seen, len(listed.names) - seen)

    def __call__(self, found):
        """The answers {"scores", "label"} for the listed classes, and [B] whether an image shows none of them."""
        listed, scores = self._listed, found["scores"][:, : len(self._listed.names)]
        calibrated, trained = confidence.calibrated(scores, listed.seen, self._gamma), found["scores"][:, self._trained]
        rejected = confidence.rejects(calibrated, trained, self._warmth, self._threshold)
        # A model's own rule holds only where all trained classes are listed, and then nothing else was asked for.
        label = found["label"] if self.asked is listed else metrics.decide(scores, ~listed.seen, self._gamma)
        return {"scores": scores, "label": label}, rejected


def _is_same(own, place, listed, there):
    """Whether a listed class is what the model was trained with: no other attributes, and no images beside them."""
    moved = listed.shifts is not None and listed.shifts[there].any()
    return not moved and np.array_equal(listed.embeddings[there], own.embeddings[place])


def required(known, what):
    """The Confidence, if there is one."""
    if known is None:
        lacks = "this classifier has no scores of validation classes: an earlier version made it, or it chose nothing"
        raise InputError(f"{what} {lacks}; wanted one that was trained anew")
    return known
