"""python -m experiments.compare --model NAME --dataset NAME --rows a,b,eszsl: claims, proved on validation classes.

Each row (an ablation of the model, or eszsl) is trained and chosen on several draws of validation classes inside the
training rows, with several seeds. The first row is compared with each other one, paired class by class, all folds
pooled. The published test classes are not opened.
"""

import pathlib

from absl import flags

from experiments import recipe, report, run
from zslkeras import evaluation, strategies, uncertainty
from zslkeras.errors import InputError
from zslkeras.models import MODELS

FLAGS = flags.FLAGS
flags.DEFINE_list("rows", None, "ablations of --model and eszsl, the first compared with each other one")
flags.DEFINE_integer("folds", 3, "draws of validation classes", lower_bound=1)
flags.DEFINE_integer("first_fold", 1, "number of the first draw; 0 is the published validation classes", lower_bound=0)


def main(argv):
    del argv
    rows = FLAGS.rows or []
    known = [*MODELS[FLAGS.model].ablations, recipe.BASELINE] if FLAGS.model in MODELS else []
    for name in rows:
        if name not in known:
            raise InputError(f"--rows: got {name!r}; wanted some of {', '.join(known) or 'the ablations of --model'}")
    if len(rows) < 2 or not FLAGS.dataset or not FLAGS.out:
        raise InputError("--model, --dataset, --out and two or more --rows are needed")
    data, out = run.data_from_flags(), pathlib.Path(FLAGS.out)
    folds = range(FLAGS.first_fold, FLAGS.first_fold + FLAGS.folds)
    configs = _configs(rows, data)
    runs = {name: _runs(name, configs[name], data, out / name, folds) for name in rows}
    numbers = {
        name: [[evaluation.numbers(*one) for one in by_fold[fold]] for fold in folds] for name, by_fold in runs.items()
    }
    flat = [(name, [one for seeds in by_fold for one in seeds]) for name, by_fold in numbers.items()]
    print(report.means("mean over folds and seeds", flat))
    first, *others = rows
    comparisons = {}
    for other in others:
        comparisons[other] = uncertainty.versus([(runs[first][fold], runs[other][fold]) for fold in folds])
        print(f"\n{first} against {other}, paired by class, {len(folds)} folds pooled")
        print(report.paired(comparisons[other]))
    result = {"folds": list(folds), "numbers": numbers, "first": first, "versus": comparisons}
    recipe.write_json(out / "compare.json", result)


def _configs(rows, data):
    """The config of each row, all different."""
    model, configs = MODELS[FLAGS.model], {}
    benchmark = data.load("tune", model.eats)
    for name in rows:
        baseline = name == recipe.BASELINE
        config = MODELS[name].Config() if baseline else run.config_from_flags(model, benchmark, name)
        for other, same in configs.items():
            if config == same:
                raise InputError(
                    f"--rows: {other} and {name} have the same settings; wanted different ones, and what an ablation "
                    "sets itself not in --set, which has the last word, but in a --config file"
                )
        configs[name] = config
    return configs


def _runs(name, config, data, out, folds):
    """{fold: [(Outcomes, gamma) a seed]} of one row; what is finished in `out` is not trained again."""
    strategy = strategies.get_strategy(FLAGS.strategy, FLAGS.replicas)
    model, seeds = FLAGS.model, FLAGS.seeds or MODELS[FLAGS.model].default_seeds
    if name == recipe.BASELINE:
        model, seeds = recipe.BASELINE, 1
    experiment = recipe.Experiment(model, config, data, strategy, out, FLAGS.jit, FLAGS.deterministic, logs=False)
    return {fold: [recipe.validated(experiment, seed, fold) for seed in range(seeds)] for fold in folds}


if __name__ == "__main__":
    run.guarded(main)
