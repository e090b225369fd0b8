"""`python -m tests.support.tune --die WHERE:N ARGS`: tuning.run with the example model, killed as `drive` says.

A worker counts as lost after some seconds instead of a minute.
"""

import sys

from tests.support.drive import EXAMPLE, kill_at
from tuning import run as tuning_run
from tuning import spaces
from zslkeras import names
from zslkeras.cli import quiet

SPACE = {
    "lambda_noise": spaces.Symbol("noise_weight", 0.0, 0.2),
    "learning_rate": spaces.Symbol("learning_rate", 1e-3, 1e-1, log=True),
}

if __name__ == "__main__":
    names.MODELS["example"], spaces.SPACES["example"] = EXAMPLE, SPACE
    quiet.tensorflow()
    from tuning import search

    search.BEAT_SECONDS, search.LOST_SECONDS = 0.5, 8
    sys.argv.pop(1)
    where, _, number = sys.argv.pop(1).partition(":")
    if number:
        kill_at(where, int(number))
    tuning_run.COMMAND(tuning_run.main)
