"""`python -m tests.campaigns.kills [KILLS] [SEED]`: kills commands at random moments, and gives each again.

A round is one command in a folder of its own: it is killed as by `kill -9` once, twice or three times, then left to
end. What it leaves has to be, bit for bit, what the same command leaves when nobody kills it.
"""

import json
import pathlib
import random
import shutil
import signal
import sys
import tempfile
import time

import numpy as np
import tensorflow as tf

from tests.cli.test_train import EXAMPLE
from tests.support.exported import draw, export_drawn
from tests.support.forked import start
from tests.support.tiny import write_tiny
from zslkeras.cli import quiet

_SECONDS = 300  # after which a command hangs
_SMALL = ("--backbone", "small", "--size", 32, "--batch_size", 8)
_FLO = ("--model", "example", "--dataset", "flo", "--epochs", 3, "--set", "noise_weight=0.1", "--out", "out")


class Place:
    """The data that all rounds read."""

    def __init__(self, folder):
        from zslkeras.images import backbones

        self.root, self.birds, self.weights = folder / "data", folder / "birds", folder / "small.weights.h5"
        write_tiny(self.root / "FLO")
        draw(self.birds)
        backbones.backbone("small", size=32).save_weights(self.weights)
        self.exported = export_drawn(folder / "drawn").run


class Job:
    """A command: how it starts in a folder, and what it leaves there."""

    def __init__(self, place):
        self.place = place

    def prepare(self, folder):
        """Puts into the folder what the command changes."""

    def check(self, folder):
        """Refuses what stands in the folder of a command that was just killed."""

    def flo(self, folder):
        """The flags of a run that goes on where one was begun."""
        resume = ("--resume",) if (folder / "out/run.json").is_file() else ()
        return "--die", "never", *_FLO, "--data_root", self.place.root, *resume


class Run(Job):
    def command(self, folder):
        return "tests.support.drive", *self.flo(folder), "--seeds", 2

    def left(self, folder):
        return trained(folder / "out")


class Tune(Job):
    def command(self, folder):
        return "tests.support.tune", *self.flo(folder), "--tuner", "random", "--trials", 3, "--nofinal_run"

    def left(self, folder):
        trials = json.loads((folder / "out/search.json").read_text())["trials"]
        recipe = json.loads((folder / "out/recipe.json").read_text())
        return {"trials": [without_times(trial) for trial in trials], "config": recipe["config"]}


class Train(Job):
    def command(self, folder):
        return "tests.cli.test_train", "--die", "never", self.place.birds, *EXAMPLE, "--out", "out"

    def left(self, folder):
        return trained(folder / "out") | saved(folder / "out/saved_model")


class Prepare(Job):
    def prepare(self, folder):
        shutil.copytree(self.place.birds, folder / "birds")

    def command(self, folder):
        args = "--dataset", "./birds", "--weights", self.place.weights, *_SMALL, "--name", "x"
        return "tests.cli.test_prepare", "--die", "write:0", *args

    def left(self, folder):
        return {end: (folder / f"birds/x{end}").read_bytes() for end in (".mat", "_maps.npy", ".json")}


class Export(Job):
    def prepare(self, folder):
        shutil.copytree(self.place.exported, folder / "run")

    def command(self, folder):
        return "zslkeras", "export", "--run", "run", "--with_backbone"

    def check(self, folder):
        """The export that stood there before, or the new one."""
        assert saved(folder / "run/saved_model")["metadata.json"]

    def left(self, folder):
        return saved(folder / "run/saved_model")


JOBS = {"run": Run, "tune": Tune, "train": Train, "prepare": Prepare, "export": Export}


def _different(job, folder, wanted):
    """The names of what is not as it should be, or not there yet."""
    try:
        left = job.left(folder)
    except FileNotFoundError as error:
        return [error.filename]
    return [key for key in wanted | left if wanted.get(key) != left.get(key)]


def trained(out):
    """What a finished run has learned and found."""
    left = {"history": (out / "history.csv").read_text()}
    left["result"] = without_times(json.loads((out / "result.json").read_text()))
    for path in sorted((out / "checkpoint").glob("*.npz")):
        with np.load(path) as file:
            left |= {f"{path.name} {name}": file[name].tobytes() for name in file.files}
    return left


def saved(path):
    """A SavedModel: its weights, its classes, and what it says of itself."""
    left = {name: (path / name).read_bytes() for name in ("metadata.json", "class_embeddings.npy")}
    weights = tf.train.load_checkpoint(str(path / "variables/variables"))
    names = [name for name in weights.get_variable_to_shape_map() if not name.startswith("_")]
    # Keras numbers them in an order of its own, which differs from process to process.
    return left | {"weights": sorted(np.asarray(weights.get_tensor(name)).tobytes() for name in names)}


def without_times(content):
    if isinstance(content, dict):
        return {key: without_times(one) for key, one in content.items() if "seconds" not in key}
    return [without_times(one) for one in content] if isinstance(content, list) else content


class Rounds:
    """Rounds of some jobs, and what came of them."""

    def __init__(self, folder, seed):
        self.folder, self.random = folder, random.Random(seed)
        self.place, self.wholes = Place(folder), {}

    def whole(self, name):
        """(seconds, what is left) of the command that nobody kills."""
        if name not in self.wholes:
            job, folder = self._begun(name)
            begun = time.monotonic()
            done = self._started(job, folder).wait_for(_SECONDS)
            assert done.returncode == 0, f"{name}: {done.err}"
            self.wholes[name] = time.monotonic() - begun, job.left(folder)
        return self.wholes[name]

    def round(self, name, most):
        """One round with at most so many kills; returns how many there were."""
        seconds, wanted = self.whole(name)
        (job, folder), kills = self._begun(name), 0
        for _ in range(self.random.randint(1, min(3, most))):
            process = self._started(job, folder)
            process.process.join(self.random.uniform(0, seconds))
            process.process.kill()
            if process.wait_for(_SECONDS).returncode != -signal.SIGKILL:
                break  # it came to its end before
            kills += 1
            job.check(folder)
        if _different(job, folder, wanted):
            done = self._started(job, folder).wait_for(_SECONDS)
            assert done.returncode == 0, f"{name} after {kills} kills: {done.err}"
        different = _different(job, folder, wanted)
        assert not different, f"{name} after {kills} kills: {', '.join(different)} differ"
        shutil.rmtree(folder)
        return kills

    def _begun(self, name):
        folder = pathlib.Path(tempfile.mkdtemp(dir=self.folder))
        job = JOBS[name](self.place)
        job.prepare(folder)
        return job, folder

    def _started(self, job, folder):
        module, *args = job.command(folder)
        return start(module, *args, cwd=folder)


def campaign(kills, seed, names=tuple(JOBS), say=print):
    """So many kills in all; returns how many rounds ended otherwise than they should."""
    with tempfile.TemporaryDirectory() as folder:
        rounds, done, wrong, number = Rounds(pathlib.Path(folder), seed), 0, 0, 0
        while done < kills:
            name = names[number % len(names)]
            number += 1
            try:
                killed = rounds.round(name, kills - done)
                done += killed
                say(f"{name}: {killed} kills, the same bits; {done} of {kills}")
            except Exception as error:  # what TensorFlow raises on half an export, say
                done, wrong = done + 1, wrong + 1
                say(f"{name}: {error}")
        say(f"kills: {done} in {number} rounds of {len(names)} commands; {wrong} rounds ended otherwise or hung")
    return wrong


if __name__ == "__main__":
    quiet.tensorflow()
    arguments = [int(one) for one in sys.argv[1:]]
    sys.exit(bool(campaign(*(arguments + [50, 0][len(arguments) :]))))
