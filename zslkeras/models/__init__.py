"""The models by name."""

from zslkeras.models.aspn import ASPN
from zslkeras.models.eszsl import ESZSL

MODELS = {"aspn": ASPN, "eszsl": ESZSL}
