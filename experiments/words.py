"""python -m experiments.words --dataset PATH --text_encoder DIR: what words are worth on your data, beside attributes.

Takes stage tune of some draws of validation classes. A model is trained on attributes, on text embeddings, and on both
side by side ("attributes, names by 0.5": the text has half the length). The validation classes are then described by
attributes, by their names, by what the table says of them, and by sentences that are made of their attributes. A model
of attributes is asked in words in two ways: by the regression that zslkeras.predict uses, and by how similar the words
are to the name of each attribute. Each row has its own settings and gamma, chosen on the same classes. The published
test classes are not opened.
"""

import dataclasses

from zslkeras.cli import flags


@dataclasses.dataclass(frozen=True)
class Settings:
    """The measurement"""

    model: str = flags.flag("eszsl", "one that takes features", choices=flags.MODELS)
    folds: int = flags.flag(3, "draws of validation classes", least=1)
    few: int = flags.flag(5, "attributes in the shorter sentences", least=1)
    row: tuple[str, ...] = flags.flag((), "a row of the table, as it is called there; repeat for more", repeat=True)
    data: flags.Data = flags.group(flags.Data)
    overrides: flags.Overrides = flags.group(flags.Overrides)
    machine: flags.Machine = flags.group(flags.Machine)


def main(settings):
    from experiments import worded  # needs TensorFlow, so only after the flags are checked

    worded.measure(settings)


def _check(settings, given, arguments):
    del settings, arguments
    for name in ("embedding", "text_weight"):
        if name in given:
            raise flags.InputError(f"--{name}: got it for a comparison of all; wanted none")


COMMAND = flags.Command(
    "python -m experiments.words",
    __doc__,
    Settings,
    example="python -m experiments.words --dataset ./birds --text_encoder ./minilm",
    needed=("dataset", "text_encoder"),
    check=_check,
)

if __name__ == "__main__":
    COMMAND(main)
