"""The models by name."""

from zslkeras.models.aspn import ASPN
from zslkeras.models.dcen import DCEN
from zslkeras.models.drmn import DRMN, DRMNFromPictures
from zslkeras.models.eszsl import ESZSL
from zslkeras.models.jlaf import JLAF
from zslkeras.models.msdn import MSDN

MODELS = {
    "aspn": ASPN,
    "dcen": DCEN,
    "drmn": DRMN,
    "drmn_pictures": DRMNFromPictures,
    "eszsl": ESZSL,
    "jlaf": JLAF,
    "msdn": MSDN,
}
