"""python -m experiments.book: makes the parts of the documentation that follow from the code.

docs/api.md comes from docstrings, and the picture in docs/architecture.md from imports.
"""

import dataclasses

from zslkeras.cli import flags


@dataclasses.dataclass(frozen=True)
class Settings:
    """The documentation"""

    docs: str = flags.flag("docs", "the folder with architecture.md, which gets api.md")


def main(settings):
    from experiments import made_of_code  # imports the library, so only after the flags are checked

    print(made_of_code.write(settings.docs))


COMMAND = flags.Command("python -m experiments.book", __doc__, Settings, example="python -m experiments.book")

if __name__ == "__main__":
    COMMAND(main)
