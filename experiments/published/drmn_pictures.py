"""DRMN from images: the paper's numbers, as for DRMN on levels."""

from experiments.published.drmn import NUMBERS as NUMBERS
