"""Flags as values: the flags of a command, and its groups of flags, are the fields of a frozen dataclass.

A field made by `flag` is a flag of that name. A field whose type is a dataclass is a group, and its docstring is the
heading in --help. `Command` reads the command line into one instance and passes it on. A command accepts only its own
flags, and `check` refuses flags that mean nothing beside the others. Nothing here imports TensorFlow.
"""

import collections
import dataclasses
import errno
import pathlib
import re
import sys
import textwrap
import types
import typing

import absl.flags

from zslkeras import atomic, names
from zslkeras.cli import quiet
from zslkeras.errors import Failed, InputError, did_you_mean
from zslkeras.models import MODELS
from zslkeras.training.machine import Machine as _Machine

_WIDTH = 110
_OF_THE_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES)


def flag(default, help, *, choices=None, least=None, most=None, repeat=False, formerly=None):
    """A field that is a flag.

    Args:
        default: the value if the flag is not given.
        help: for --help.
        choices: the allowed values, also of each of several.
        least, most: bounds of a number.
        repeat: whether several values are given by repeating the flag, and not by commas.
        formerly: an older name that still works.
    """
    about = {"choices": choices, "least": least, "most": most, "repeat": repeat, "formerly": formerly}
    return dataclasses.field(default=default, metadata={"help": help, **about})


def field_of(settings, name):
    """A copy of a flag of another group, for a command that acts on only some flags of that group."""
    field = settings.__dataclass_fields__[name]
    return dataclasses.field(default=field.default, metadata=field.metadata)


def group(settings):
    """A field that is a group of flags, with defaults for those that are not given."""
    return dataclasses.field(default=settings())


# Groups that several commands share.


@dataclasses.dataclass(frozen=True)
class Data:
    """Data"""

    dataset: str | None = flag(
        None,
        f"shapes, {', '.join(name.lower() for name in names.BENCHMARKS)}, or the path of your own folder of images",
    )
    features: str | None = flag(None, "name of the feature file; by default res101 if it is there, else the only one")
    splits: str | None = flag(None, "att_splits or sent_splits")
    data_root: str | None = flag(None, "where the data lies; $ZSLKERAS_DATA, then ./data")
    images: str | None = flag(None, "where the images lie")
    classes: str | None = flag(
        None, "own folder: table of classes (CSV, TSV, JSON), or .npy of text embeddings with names in a .txt"
    )
    text_encoder: str | None = flag(
        None, "own folder: the folder of a sentence encoder, or hf://NAME; reads what the table says in words"
    )
    embedding: str | None = flag(
        None,
        "own folder: what class embeddings are made of; attributes where the table has any, if not given",
        choices=names.EMBEDDINGS,
    )
    text_weight: float | None = flag(
        None,
        "own folder: of text beside attributes, with --embedding both; found on validation classes if not given",
        least=0,
    )
    unseen: str | None = flag(
        None, "own folder: the unseen classes, as a comma-separated list, a file with one name per line, or a fraction"
    )
    attribute_vectors: str | None = flag(None, ".npy [A, V] with a vector for each attribute")
    normalize: str | None = flag(None, "false keeps the stored length of class embeddings", choices=("true", "false"))
    negatives: str | None = flag(None, "what to do with negative attributes", choices=names.NEGATIVES)
    draw: int | None = flag(None, "shapes: which draw of images, classes and split", least=0)

    def arguments(self):
        """What `protocol.Data` is given."""
        options = dataclasses.asdict(self)
        name, root, normalize = (options.pop(key) for key in ("dataset", "data_root", "normalize"))
        options = {key: value for key, value in options.items() if value is not None}
        if normalize:
            options["normalize"] = normalize == "true"
        return {"name": name, "root": root, "options": options}


@dataclasses.dataclass(frozen=True)
class Overrides:
    """Settings of the model"""

    preset: str | None = flag(
        None, "settings by name in place of the defaults: what the paper has, or version 0.1 had", choices=names.PRESETS
    )
    config: str | None = flag(None, "JSON file of settings, such as the result.json of an earlier run")
    set: tuple[str, ...] = flag((), "key=value of the model's config; overrides all else; repeat for more", repeat=True)
    epochs: int | None = flag(None, "train at most this many", least=1)
    batch_size: int | None = flag(None, "rows of a global batch", least=1)
    weights: str | None = flag(None, "weights of a backbone: imagenet, or a .weights.h5, .h5 or .keras file")

    def base(self):
        """The settings in the --config file: {"config": {...}} as result.json has it, or the bare settings."""
        if self.config is None:
            return {}
        path = pathlib.Path(self.config)
        if not path.is_file():
            raise InputError(f"config: no file {path}; wanted JSON, such as the result.json of an earlier run")
        content = atomic.read_json(path)
        settings = content.get("config", content)
        if not isinstance(settings, dict):
            raise InputError(f"config: {path} has {settings!r} as its config; wanted an object of settings")
        return settings

    def last(self):
        """The settings that have the last word: {field: value, or a text}."""
        given = {name: getattr(self, name) for name in ("epochs", "batch_size", "weights")}
        settings = {name: value for name, value in given.items() if value is not None}
        for text in self.set:
            key, equals, value = text.partition("=")
            if not equals:
                raise InputError(f"set: got {text!r}; wanted key=value")
            settings[key] = value
        return settings


@dataclasses.dataclass(frozen=True)
class Machine:
    """Devices and precision"""

    strategy: str = flag(
        _Machine.strategy, "one device, all GPUs of this machine, or the cluster in TF_CONFIG", choices=names.STRATEGIES
    )
    replicas: int | None = flag(_Machine.replicas, "mirrored: how many; one per GPU if not given")
    precision: str = flag(_Machine.precision, "what layers compute in", choices=names.PRECISIONS)
    jit: bool = flag(_Machine.jit, "compile the training step with XLA (one device)")
    deterministic: bool = flag(
        _Machine.deterministic, "the same weights from the same seed, bit for bit; costs speed on GPUs"
    )

    def machine(self):
        return _Machine(**dataclasses.asdict(self))


@dataclasses.dataclass(frozen=True)
class Export:
    """Exports"""

    with_backbone: bool = flag(False, "make endpoints that take the bytes of images")
    formats: tuple[str, ...] = flag(
        (), "further formats, for models on features; repeat for more", choices=names.FORMATS, repeat=True
    )


# Every model, also one that is registered later, and "auto".
MODELS_AND_AUTO = collections.ChainMap({names.AUTO: None}, MODELS)


def model(choices=MODELS):
    """The flag of commands that train."""
    return flag(None, f"one of {', '.join(choices)}", choices=choices)


class Command:
    """A command: its flags, its help, and its exit code.

    Args:
        name: as it is typed.
        about: the module's docstring, whose first line says what the command does.
        settings: a frozen dataclass of flags and groups.
        example: a command line that works.
        needed: names of the flags that have to be given.
        acts_alone: {flag: names of the only flags allowed beside it}; these then have to be given.
        arguments: the name for --help of what stands beside the flags; None if nothing may.
        check: called with the settings, the names of the flags that were given, and the arguments, before anything
            heavy is imported; raises InputError.
    """

    def __init__(self, name, about, settings, example, needed=(), acts_alone=None, arguments=None, check=None):
        self.name, self.about, self.settings, self.example = name, about, settings, example
        self.needed, self.acts_alone, self.arguments, self.check = needed, acts_alone or {}, arguments, check
        self.fields = dict(_fields(settings))

    def __call__(self, work, argv=None):
        """Reads the command line and calls `work` with the settings, and with the arguments if it takes any.

        Exits with 2 for wrong input, and with 1 if the work failed.
        """
        argv = list(sys.argv[1:] if argv is None else argv)
        settings = None
        try:
            if {"--help", "-h", "-help"} & set(argv):
                print(self.help())
                return
            settings, arguments = self.read(argv)
            quiet.in_utf8()
            quiet.tensorflow()
            work(settings, *([arguments] if self.arguments else []))
        except InputError as error:
            _exit(self._as_flag(str(error)), 2)
        except Failed as error:
            _exit(error, 1)
        except OSError as error:
            if error.errno not in _OF_THE_DISK:
                raise
            _exit(f"{error.filename or getattr(settings, 'out', None) or 'runs'}: {error.strerror}", 2)

    def read(self, argv):
        """The settings and the arguments of a command line."""
        values = absl.flags.FlagValues()
        for name, field in self.fields.items():
            _define(values, name, field)
        try:
            rest = values([self.name, *argv])[1:]
        except absl.flags.UnrecognizedFlagError as error:
            known = did_you_mean(error.flagname, self.fields)
            raise InputError(f"--{error.flagname}: no flag of {self.name}; {known}") from None
        except absl.flags.Error as error:
            raise InputError(str(error)) from None
        if rest and not self.arguments:
            raise InputError(f"got {rest[0]!r}; every argument of {self.name} is a flag, as in {self.example}")
        given = {name for name in self.fields if values[name].present}
        settings = _made(self.settings, {name: _value(name, self.fields[name], values[name].value) for name in given})
        alone = next((name for name in self.acts_alone if name in given), None)
        if alone:
            self._refuse_beside(alone, given, rest)
        for name in self.acts_alone[alone] if alone else self.needed:
            if name not in given:
                raise InputError(f"--{name} is missing; wanted {self.fields[name].metadata['help']}")
        if self.check and not alone:
            self.check(settings, given, rest)
        return settings, rest

    def _refuse_beside(self, alone, given, arguments):
        beside = self.acts_alone[alone]
        others = [f"--{name}" for name in sorted(given - {alone, *beside})] + arguments
        if others:
            wanted = " and ".join(f"--{name}" for name in beside)
            raise InputError(f"{others[0]}: got it beside --{alone}; wanted --{alone} with {wanted} alone")

    def help(self):
        """What --help prints: what the command does, an example, and its flags by topic."""
        usage = " ".join([self.name, "[flags]", *([self.arguments] if self.arguments else [])])
        lines = [self.about.strip(), "", f"usage:   {usage}", f"example: {self.example}"]
        topics = {}
        for owner, name, field in _owned(self.settings):
            topics.setdefault(owner.__doc__.partition("\n")[0].strip(), []).append((name, field))
        for topic, flags in topics.items():
            lines += ["", f"{topic}:"]
            for name, field in flags:
                left = f"  --{name}" + ("" if field.type is bool else f" {_kind(field)}")
                said = field.metadata["help"] + _limits(field)
                wrapped = textwrap.wrap(said, _WIDTH - 30)
                first = f"{left:<29} {wrapped[0]}" if len(left) < 30 else f"{left}\n{'':<30}{wrapped[0]}"
                lines += [first, *(f"{'':<30}{line}" for line in wrapped[1:])]
        return "\n".join(lines)

    def _as_flag(self, sentence):
        """An error sentence of the library, with the arguments that it names turned into their flags."""
        named = re.match(r"(\w+)(?=: )", sentence)
        sentence = f"--{sentence}" if named and named[1] in self.fields else sentence
        return re.sub(
            r"\bpass (\w+)=", lambda told: f"pass --{told[1]} " if told[1] in self.fields else told[0], sentence
        )


def names_of(settings):
    """The names of the flags of a dataclass and of its groups."""
    return [name for name, _ in _fields(settings)]


def part_of(whole, given, *parts):
    """Refuses flags that mean something only beside another one."""
    for part in parts:
        if part in given and whole not in given:
            raise InputError(f"--{part}: got it without --{whole}, of which it is a part; wanted both")


def _fields(settings):
    return ((name, field) for _, name, field in _owned(settings))


def _owned(settings):
    """(class, name, field) of each flag of a dataclass and of its groups."""
    types_of = typing.get_type_hints(settings)
    for field in dataclasses.fields(settings):
        if dataclasses.is_dataclass(types_of[field.name]):
            yield from _owned(types_of[field.name])
        else:
            yield settings, field.name, field


def _made(settings, values):
    """An instance of a dataclass of flags, made from the values that were given."""
    types_of, made = typing.get_type_hints(settings), {}
    for field in dataclasses.fields(settings):
        if dataclasses.is_dataclass(types_of[field.name]):
            made[field.name] = _made(types_of[field.name], values)
        elif field.name in values:
            made[field.name] = values[field.name]
    return settings(**made)


def _define(values, name, field):
    """Defines an absl flag. All except switches are read as texts, which `_value` converts to the field's type."""
    options = {"flag_values": values}
    if field.type is bool:
        absl.flags.DEFINE_boolean(name, field.default, field.metadata["help"], **options)
    elif field.metadata["repeat"]:
        absl.flags.DEFINE_multi_string(name, None, field.metadata["help"], **options)
    else:
        absl.flags.DEFINE_string(name, None, field.metadata["help"], **options)
    if field.metadata["formerly"]:
        absl.flags.DEFINE_alias(field.metadata["formerly"], name, **options)


def _value(name, field, given):
    """What was given for a flag, converted to its type and checked against its bounds."""
    kind, about = _kind_of(field), field.metadata
    many = typing.get_origin(field.type) is tuple
    texts = given if isinstance(given, list) else given.split(",") if many else [given]
    values = [_typed(name, kind, text) for text in texts if text != "" or not many]
    for value in values:
        if about["choices"] is not None and value not in about["choices"]:
            raise InputError(f"--{name}: got {value!r}; {_one_of(value, about['choices'])}")
        if about["least"] is not None and value < about["least"]:
            raise InputError(f"--{name}: got {value}; wanted at least {about['least']}")
        if about["most"] is not None and value > about["most"]:
            raise InputError(f"--{name}: got {value}; wanted at most {about['most']}")
    return tuple(values) if many else values[0]


def _one_of(value, choices):
    near = did_you_mean(value, choices, every=True)
    return near if near.startswith("wanted") else f"{near} wanted one of {', '.join(choices)}"


def _typed(name, kind, text):
    if kind is bool or kind is str:
        return text
    try:
        return kind(text)
    except ValueError:
        raise InputError(f"--{name}: got {text!r}; wanted {_NUMBERS[kind]}") from None


_NUMBERS = {int: "a whole number", float: "a number"}


def _kind_of(field):
    """The type of a flag, or of each of its values: str, int, float or bool."""
    options = typing.get_args(field.type)
    if typing.get_origin(field.type) is tuple or isinstance(field.type, types.UnionType):
        return options[0]
    return field.type


def _kind(field):
    kind = {str: "TEXT", int: "N", float: "X"}[_kind_of(field)]
    return f"{kind},..." if typing.get_origin(field.type) is tuple and not field.metadata["repeat"] else kind


def _limits(field):
    """What --help says about the choices and the default."""
    choices, default = field.metadata["choices"], field.default
    said = "" if choices is None or "one of" in field.metadata["help"] else f": {', '.join(choices)}"
    if default is None or default == () or default is False:
        return said
    return f"{said} (default: {','.join(default) if isinstance(default, tuple) else default})"


def _exit(message, code):
    print(f"error: {message}".replace("\n", " "), file=sys.stderr)
    sys.exit(code)
