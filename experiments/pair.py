"""python -m experiments.pair --runs DIR,DIR,... --against DIR,DIR,...: finished runs, compared class by class.

The first of one list is paired with the first of the other, and so on: draws of `shapes`, say, or one benchmark each.
All pairs are pooled, the seeds of a run averaged. `--against eszsl` pairs with the baseline of each run. Nothing is
trained, and no test class is looked at that the runs had not.
"""

from absl import flags

from experiments import finished, recipe, report, run
from zslkeras import evaluation, uncertainty
from zslkeras.errors import InputError

FLAGS = flags.FLAGS
flags.DEFINE_list("runs", [], "folders of finished runs")
flags.DEFINE_list("against", [recipe.BASELINE], f"as many others, paired with these in turn; or {recipe.BASELINE}")
flags.declare_key_flag("data_root")


def main(argv):
    if len(argv) > 1:
        raise InputError(f"got {argv[1]!r}; every argument is a flag, as in --runs runs/msdn-shapes")
    if not FLAGS.runs:
        raise InputError("--runs is missing; wanted folders of finished runs, as in --runs runs/msdn-shapes")
    runs, others = FLAGS.runs, FLAGS.against
    with_baseline = others == [recipe.BASELINE]
    if with_baseline:
        others = others * len(runs)
    if len(others) != len(runs):
        raise InputError(f"--against: got {len(others)} folders; wanted one for each of the {len(runs)} runs")
    ours = [_opened(path, "--runs") for path in runs]
    theirs = [_baseline(one) for one in ours] if with_baseline else [_opened(path, "--against") for path in others]
    folds = [[list(map(recipe.scored, seeds)) for _, seeds in pair] for pair in zip(ours, theirs, strict=True)]
    try:
        comparison = uncertainty.versus(folds)
    except ValueError as error:
        raise InputError(f"--against: {error}") from None
    rows = []
    for run_path, other_path, (mine, theirs) in zip(runs, others, folds, strict=True):
        rows += [(run_path, _numbers(mine)), (other_path, _numbers(theirs))]
    print(report.means("mean over seeds", rows))
    print(f"\nthe former against the latter, paired by class, {len(runs)} pooled")
    print(report.paired(comparison))


def _opened(path, flag):
    return finished.run(path, FLAGS.data_root, flag=flag)


def _baseline(one):
    experiment, seeds = one
    base, reason = recipe.baseline(experiment, seeds)
    if base is None:
        raise InputError(f"--against: no {recipe.BASELINE} on the data of {experiment.out}: {reason}")
    return experiment, [base]


def _numbers(scored):
    return [evaluation.numbers(*one) for one in scored]


if __name__ == "__main__":
    run.guarded(main)
