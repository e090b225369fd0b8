"""The models by name."""

from zslkeras.models.aspn import ASPN
from zslkeras.models.drmn import DRMN
from zslkeras.models.eszsl import ESZSL
from zslkeras.models.jlaf import JLAF
from zslkeras.models.msdn import MSDN

MODELS = {"aspn": ASPN, "drmn": DRMN, "eszsl": ESZSL, "jlaf": JLAF, "msdn": MSDN}
