"""python -m experiments.report: makes docs/results/*.md of the files that `experiments.campaign` leaves.

A page for each benchmark has all models in one table, and a page for each model its ablations. Every number in them
comes from a file under --results; a page that no file speaks for is removed.
"""

import dataclasses

from zslkeras.cli import flags


@dataclasses.dataclass(frozen=True)
class Settings:
    """The pages"""

    results: str = flags.flag("results", "the folder of the campaign's files")
    docs: str = flags.flag("docs/results", "the folder of the pages")


def main(settings):
    from experiments import pages  # needs numpy, so only after the flags are checked

    print(pages.write(settings.results, settings.docs))


COMMAND = flags.Command("python -m experiments.report", __doc__, Settings, example="python -m experiments.report")

if __name__ == "__main__":
    COMMAND(main)
