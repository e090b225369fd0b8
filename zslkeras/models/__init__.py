"""The models by name."""

from zslkeras.models.eszsl import ESZSL

MODELS = {"eszsl": ESZSL}
