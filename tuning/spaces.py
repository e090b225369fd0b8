"""What a search varies: for each model the symbols of its paper, the config fields that they set, and their ranges.

Each range holds the values that the paper swept or printed, and those that the released code and our own recipes use.
If the axis of a figure cannot be read as text, the comment says that the ends are ours. What each trial chooses itself
is not here: the epoch, and the gamma of calibrated stacking, which is JLAF's gamma in Eq. (9).
"""

import dataclasses

from zslkeras import names
from zslkeras.errors import InputError
from zslkeras.models import entry_points


@dataclasses.dataclass(frozen=True)
class Symbol:
    """One hyperparameter: a range of numbers (integers if its ends are), or a few `values` in order."""

    field: str  # of the model's config
    low: float | None = None
    high: float | None = None
    log: bool = False
    values: tuple = ()

    def declare(self, space, name):
        if self.values:
            return space.Choice(name, list(self.values), ordered=True)
        kind = space.Int if isinstance(self.low, int) else space.Float
        return kind(name, self.low, self.high, sampling="log" if self.log else "linear")


_RATE = Symbol("learning_rate", 1e-5, 1e-2, log=True)  # the papers print 1e-4 and 1e-3

SPACES = {
    "aspn": {  # no sweep is shown; Sec. 4.1 prints theta 1, beta 0.01, alpha 0.9
        "theta": Symbol("theta", 0.01, 10.0, log=True),
        "beta": Symbol("beta", 1e-3, 10.0, log=True),  # the usual WGAN-GP has 10
        "alpha": Symbol("alpha", 0.02, 0.98),
        "learning_rate": _RATE,
    },
    "dcen": {
        "lambda1": Symbol("lambda1", 0.0, 1.0),  # Fig. 4 (a): from 0 to 1, best about 0.1
        "lambda2": Symbol("lambda2", 0.0, 1.0),  # Fig. 4 (b), as (a); its axis is not in the text
        "sigma": Symbol("sigma", 0.0, 0.9),  # Fig. 6 (a): from few attributes to too many; ends are ours
        "K": Symbol("blocks", 1, 4),  # Fig. 6 (b): best at 2; ends are ours
        "tau": Symbol("tau", 0.02, 0.5, log=True),  # 0.07, not swept
        "m": Symbol("momentum", values=(0.9, 0.99, 0.999, 0.9999)),  # 0.999, not swept
        "learning_rate": _RATE,
    },
    "drmn": {
        "lambda_SC": Symbol("lambda_sc", 0.0, 0.5),  # Sec. 4 prints 0.1 and 0.2
        "lambda_GC": Symbol("lambda_gc", 0.0, 1.0),  # Fig. 6: best at 0.6 and 0.5; ends are ours
        "beta": Symbol("beta", 0.0, 1.0),  # Fig. 7: from one branch alone to the other
        "gamma": Symbol("scale", 1.0, 20.0, log=True),  # in Eq. (8); not printed, 5 in the work it cites
        "learning_rate": _RATE,
    },
    "jlaf": {  # Sec. 4.1: cross-validation over classes gave alpha 0.5 and eta 1; its ranges are not printed
        "alpha": Symbol("alpha", 0.01, 10.0, log=True),
        "eta": Symbol("eta", 0.01, 10.0, log=True),
        "tau": Symbol("tau", 1.0, 100.0, log=True),  # the factor in Eq. (4), not in the paper
        "learning_rate": _RATE,
    },
    "msdn": {
        "lambda_cal": Symbol("lambda_cal", 0.0, 0.5),  # Fig. 7 (a, b): 0 and 0.1 taken; the released code has up to 0.3
        "lambda_distill": Symbol("lambda_distill", 1e-7, 0.1, log=True),  # Fig. 7 (c, d): 0.001, 0.01; released 1e-7
        "alpha1": Symbol("alpha1", 0.0, 1.0),  # Fig. 6: (alpha1, alpha2) from one sub-net alone to the other
        "learning_rate": _RATE,
    },
}
SPACES["drmn_pictures"] = SPACES["drmn"]  # the same losses
SPACES |= {name: {"learning_rate": _RATE} for name in entry_points() if name not in names.MODELS}  # of other packages
TUNERS = ("bayesian", "random", "hyperband")


def settings(model, values):
    """The config fields that `values` of symbols set; a name that is not a symbol is taken as a field."""
    symbols = SPACES[model]
    fields = {symbols[name].field if name in symbols else name: value for name, value in values.items()}
    fields = {name: value for name, value in fields.items() if not name.startswith("tuner/")}
    if "tuner/epochs" in values:  # how long Hyperband lets this trial train
        fields["epochs"] = values["tuner/epochs"]
    if model == "msdn" and "alpha1" in fields:  # the paper's pairs add up to one
        try:
            fields["alpha2"] = round(1 - float(fields["alpha1"]), 10)
        except ValueError:
            raise InputError(f"alpha1: got {fields['alpha1']!r}; wanted a number") from None
    return fields
