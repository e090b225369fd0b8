"""What `experiments.run` left in a folder, taken up again; trains nothing."""

import pathlib

import keras

from experiments import recipe
from experiments.configs import config_for
from zslkeras import strategies
from zslkeras.benchmarks import files
from zslkeras.errors import InputError
from zslkeras.models import MODELS

_NEEDED = ("config", "data", "dataset_digest", "features", "model", "seeds", "selected_on_validation")


def run(path, data_root=None, images=None, seeds=None, flag="--run"):
    """The Experiment of a finished run, and the Finished of each of its seeds.

    Args:
        path: its folder; of a row of `--ablation all`, the row's.
        data_root, images: where data and pictures lie now, if not where they lay.
        seeds: how many of its seeds; None for all.
        flag: whose value `path` is, for what is said of a wrong one.
    """
    path = pathlib.Path(path)
    result = files.read_json(path / "result.json")
    if not result:
        raise InputError(f"{flag}: no result.json in {path}; wanted the folder of a finished run")
    if lacking := set(_NEEDED) - set(result):
        raise InputError(f"{flag}: {path / 'result.json'} has no {min(lacking)}; wanted what a finished run leaves")
    name = result["model"]
    if name not in MODELS:
        raise InputError(f"{flag}: {path} is of model {name!r}; wanted one of {', '.join(MODELS)}")
    seeds, stages = result["seeds"][:seeds], ["tune", "final"] if result["selected_on_validation"] else ["final"]
    for checkpoint in (path / "checkpoint" / f"seed{seed}-{stage}.npz" for seed in seeds for stage in stages):
        if not checkpoint.is_file():
            raise InputError(f"{flag}: no {checkpoint}; wanted the folder of a finished run, with its checkpoints")
    data = result["data"]
    options = data["options"] | ({"images": images} if images else {})
    data = recipe.Data(data["name"], data_root or data["root"], options)
    # A row of --ablation all lies in the folder of the run.
    identity = files.read_json(path / "run.json") or files.read_json(path.parent / "run.json")
    keras.config.set_dtype_policy(identity.get("precision", "float32"))
    config = config_for(MODELS[name], name, data.name.lower(), result["features"], base=result["config"])
    experiment = recipe.Experiment(name, config, data, strategies.get_strategy(), path, logs=False)
    digest = recipe.published(experiment).digest
    if digest != result["dataset_digest"]:
        was = result["dataset_digest"]
        raise InputError(f"{flag}: {path} was made of data {was}, {data.name} is {digest}; wanted the same data")
    choose = recipe.select if len(stages) == 2 else recipe.fixed
    return experiment, [recipe.finish(experiment, choose(experiment, seed)) for seed in seeds]
