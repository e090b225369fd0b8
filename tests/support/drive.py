"""`python -m tests.support.drive --die WHERE:N ARGS`: experiments.run with the example model, killed as by `kill -9`.

WHERE is step (the N-th training step), rename (the N-th file, written but not yet renamed), renamed (just after),
write (half-way through the N-th file), or done (hearing for the N-th time that all workers are done). `--die never`
runs through. The yardsticks have a setting or two each.
"""

import itertools
import os
import signal
import sys

import numpy as np

from experiments import run
from zslkeras import names, progress
from zslkeras.cli import quiet

EXAMPLE = ("tests.support.example", "Example")  # imported when it is asked for: TensorFlow comes first, quietly


def die():
    os.kill(os.getpid(), signal.SIGKILL)


def nth(number):
    """A function that is true at its call of that number alone."""
    calls = itertools.count(1)
    return lambda: next(calls) == number


def kill_at(where, number):
    now = nth(number)
    replace, savez, advance = os.replace, np.savez, progress.Progress.advance

    def dying_replace(source, target):
        last = now()
        if last and where == "rename":
            die()
        replace(source, target)
        if last and where == "renamed":
            die()

    def dying_savez(file, **arrays):
        savez(file, **arrays)
        if now():
            file.truncate(file.tell() // 2)
            file.flush()
            die()

    def dying_advance(self, *args):
        advance(self, *args)
        if now():
            die()

    if where == "done":
        from zslkeras.training import strategies

        from_chief = strategies.from_chief

        def dying_from_chief(strategy, numbers):
            answer = from_chief(strategy, numbers)
            if "done" in numbers and now():
                die()
            return answer

        strategies.from_chief = dying_from_chief
    if where in ("rename", "renamed"):
        os.replace = dying_replace
    if where == "write":
        np.savez = dying_savez
    if where == "step":
        progress.Progress.advance = dying_advance


if __name__ == "__main__":
    names.MODELS["example"] = EXAMPLE
    sys.argv.pop(1)
    where, _, number = sys.argv.pop(1).partition(":")
    quiet.tensorflow()
    from tests.support import commands
    from zslkeras.models import MODELS, conditioning
    from zslkeras.training import strategies

    MODELS["eszsl"].Config, MODELS["prototypes"].Config = commands.FewSettings, commands.FewPrototypes
    conditioning.PROBED = commands.FEW_PROBED
    if where == "patience":  # seconds that a missing worker is waited for
        strategies.START_SECONDS = int(number)
    elif number:
        kill_at(where, int(number))
    run.COMMAND(run.main)
