"""What goes wrong, as one sentence: wrong input, and work that failed."""

import difflib
import re

_LISTED = 5  # names in a sentence, where none is near
_LONGEST = 200  # letters of another library's message, or of what was given
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")  # ends a line, or steers a terminal
_PLACE = re.compile(r"\{\{\w+ [^}]*\}\} ?| \[Op:\w+\].*")  # of TensorFlow, in its graph


class InputError(ValueError):
    """Wrong input. The message names the thing, the value got and the value wanted; a command exits with code 2.

    It stays on one line, whatever the names that it quotes: their control characters are escaped.
    """

    def __init__(self, sentence):
        super().__init__(_CONTROL.sub(lambda found: repr(found[0])[1:-1], sentence))


class Failed(RuntimeError):
    """Right input, and work that failed all the same: a loss that is not finite, a lost worker. Exit code 1."""


def did_you_mean(name, names, every=False):
    """The end of a sentence about a name that is not among `names`: the nearest ones, or what there is.

    Args:
        name: what was given.
        names: what there is.
        every: whether all names are listed where none is near, however many.
    """
    names = list(names)
    if near := difflib.get_close_matches(name, names, 3):
        return f"did you mean {' or '.join(near)}?"
    listed = names if every else names[:_LISTED]
    return f"wanted one of {', '.join(listed)}{', ...' * (len(listed) < len(names))}"


def quoted(given):
    """What was given, as Python writes it, cut to a length that fits a sentence."""
    text = repr(given)
    return f"{text[:_LONGEST]}..." if len(text) > _LONGEST else text


def brief(error):
    """The first line of what another library says, cut to a length that fits a sentence."""
    line = _PLACE.sub("", str(error).strip().partition("\n")[0])
    return (f"{line[:_LONGEST]}..." if len(line) > _LONGEST else line) or type(error).__name__
