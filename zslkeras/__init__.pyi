"""What `import zslkeras` gives, for editors and type checkers: names are imported when they are first used."""

from zslkeras.benchmarks import from_arrays
from zslkeras.benchmarks import load as load_benchmark
from zslkeras.classifier import ZeroShotClassifier, fit, load
from zslkeras.errors import InputError
from zslkeras.models import MODELS
from zslkeras.models.aspn import ASPN
from zslkeras.models.dcen import DCEN
from zslkeras.models.drmn import DRMN, DRMNFromPictures
from zslkeras.models.eszsl import ESZSL
from zslkeras.models.jlaf import JLAF
from zslkeras.models.msdn import MSDN
from zslkeras.models.prototypes import Prototypes
from zslkeras.version import __version__

__all__ = [
    "ASPN",
    "DCEN",
    "DRMN",
    "ESZSL",
    "JLAF",
    "MODELS",
    "MSDN",
    "DRMNFromPictures",
    "InputError",
    "Prototypes",
    "ZeroShotClassifier",
    "__version__",
    "fit",
    "from_arrays",
    "load",
    "load_benchmark",
]
