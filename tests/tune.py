"""`python -m tests.tune --die WHERE:N ARGS`: tuning.run with the example model, killed as `tests.drive` says.

A worker counts as lost after some seconds instead of a minute.
"""

import sys

from experiments import run
from tests.drive import kill_at
from tests.example import Example
from tuning import run as tuning_run
from tuning import search, spaces
from zslkeras.models import MODELS

SPACE = {
    "lambda_noise": spaces.Symbol("noise_weight", 0.0, 0.2),
    "learning_rate": spaces.Symbol("learning_rate", 1e-3, 1e-1, log=True),
}

if __name__ == "__main__":
    MODELS["example"], spaces.SPACES["example"] = Example, SPACE
    search.BEAT_SECONDS, search.LOST_SECONDS = 0.5, 8
    sys.argv.pop(1)
    where, _, number = sys.argv.pop(1).partition(":")
    if number:
        kill_at(where, int(number))
    run.guarded(tuning_run.main)
