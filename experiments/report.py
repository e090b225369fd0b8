"""python -m experiments.report: makes docs/results/*.md of the files that `experiments.campaign` leaves.

A page for each benchmark has all models in one table, and a page for each model its ablations. Every number in them
comes from a file under --results; a page that no file speaks for is removed. The table of results in the README is made
too.

python -m experiments.report --html RUN [RUN ...]: one HTML file about finished runs, which opens without a network.
"""

import dataclasses
import os

from zslkeras.cli import flags


@dataclasses.dataclass(frozen=True)
class Settings:
    """The pages"""

    results: str = flags.flag("results", "the folder of the campaign's files")
    docs: str = flags.flag("docs/results", "the folder of the pages")
    readme: str | None = flags.flag(
        None, "the file that gets a summary between its two marks; README.md if neither --results nor --docs is given"
    )
    html: bool = flags.flag(False, "report on the folders of finished runs, as in --html runs/msdn-shapes")
    out: str | None = flags.flag(None, "--html: the file to write; report.html in the first run if not given")


def main(settings, folders):
    from experiments import html, pages  # need numpy, so only after the flags are checked

    if settings.html:
        print(html.write(folders, settings.out))
    else:
        usual = (settings.results, settings.docs) == (Settings.results, Settings.docs) and os.path.isfile("README.md")
        readme = settings.readme or ("README.md" if usual else None)
        print(pages.write(settings.results, settings.docs, readme))


def _check(settings, given, folders):
    if settings.readme and not os.path.isfile(settings.readme):
        raise flags.InputError(f"--readme: no file {settings.readme}; wanted one that has the two marks")
    flags.part_of("html", given, "out")
    if settings.html and not folders:
        raise flags.InputError("--html: got no folder; wanted those of finished runs, as in --html runs/msdn-shapes")
    if settings.html and (other := given & {"results", "docs", "readme"}):
        raise flags.InputError(f"--{min(other)}: got it with --html, which reads runs; wanted one of them")
    if folders and not settings.html:
        raise flags.InputError(f"got {folders[0]!r}; wanted --html before the folders of runs")


COMMAND = flags.Command(
    "python -m experiments.report",
    __doc__,
    Settings,
    example="python -m experiments.report --html runs/msdn-shapes",
    arguments="RUNS",
    check=_check,
)

if __name__ == "__main__":
    COMMAND(main)
