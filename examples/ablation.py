"""A row of a paper's ablation table, tested without opening the test classes: is MSDN's attention worth something?

    python examples/ablation.py

Table 2 of MSDN compares the whole method with one that pools regions evenly. Here both are trained on the drawn
benchmark, on two draws of validation classes, and compared class by class. It takes a few minutes.
`python -m experiments.compare` does the same from the command line, with checkpoints.
"""

import dataclasses
import sys

import zslkeras
from zslkeras import protocol
from zslkeras.evaluation import metrics, tables, uncertainty


def main(data_root=None, epochs=12, batch_size=50, folds=(1, 2)):
    model = zslkeras.MSDN
    # The method alone, as in the paper: without the closed form that stands beside it by default.
    whole = model.Config(closed_form=0.0, epochs=int(epochs), batch_size=int(batch_size))
    rows = {"full": whole, "baseline": dataclasses.replace(whole, **model.ablations["baseline"])}
    data = protocol.Data("shapes", data_root)

    found = {}
    for name, config in rows.items():
        experiment = protocol.Experiment("msdn", config, data, logs=False)
        found[name] = [[protocol.validated(experiment, seed=0, fold=fold)] for fold in folds]
        numbers = metrics.summaries([metrics.numbers(*seeds[0]) for seeds in found[name]])
        print(name, {metric: tables.percent(numbers[metric]["mean"]) for metric in ("T", "H", "AUSUC")})

    versus = uncertainty.versus(list(zip(found["full"], found["baseline"], strict=True)))
    print("the whole method against the baseline, paired by class:")
    print(tables.paired(versus))
    print(tables.in_words("MSDN", "its baseline", "T", versus["T"]))


if __name__ == "__main__":
    main(*sys.argv[1:])
