"""DRMN from pictures: the paper's settings, as for DRMN on levels; those that were tuned here on levels stay there."""

from experiments.published import drmn

SETTINGS = {dataset: drmn.SETTINGS[dataset] for dataset in ("sun", "awa2")}
NUMBERS = drmn.NUMBERS
