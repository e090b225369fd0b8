"""DRMN from images: the paper's settings, as for DRMN on levels, without those that were tuned here on levels."""

from experiments.published import drmn

SETTINGS = {dataset: drmn.SETTINGS[dataset] for dataset in ("sun", "awa2")}
NUMBERS = drmn.NUMBERS
