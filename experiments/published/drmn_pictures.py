"""DRMN from images: the paper's numbers and claims, as for DRMN on levels."""

from experiments.published.drmn import CLAIMS as CLAIMS
from experiments.published.drmn import NUMBERS as NUMBERS
