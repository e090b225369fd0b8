"""What JSON from disk has to be: which names, and which kind of value under each."""

from zslkeras.errors import InputError, quoted

_WORDS = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "text",
    list: "a list",
    dict: "an object",
}


class Each:
    """The kind of an object whose values are all of one kind, whatever their names."""

    def __init__(self, kind):
        self.kind = kind


class OrNull(Each):
    """The kind of what may be null."""


def require(content, kind, where, place="", or_null=""):
    """Refuses what is not of a kind; returns what is.

    Args:
        content: what JSON holds.
        kind: bool, int, float, str, list or dict; [kind] for a list of it; {name: kind} for an object with these names
            and any others, where a name that ends with "?" may be absent; Each(kind); or OrNull(kind).
        where: the file, for the sentence.
        place: of the content in the file.
        or_null: " or null" where that is possible too.
    """
    if isinstance(kind, OrNull):
        if content is not None:
            require(content, kind.kind, where, place, " or null")
        return content
    outer = kind if isinstance(kind, type) else list if isinstance(kind, list) else dict
    if not _is(content, outer):
        raise InputError(f"{where}: {place or 'it'} is {quoted(content)}; wanted {_WORDS[outer]}{or_null}")
    if isinstance(kind, list):
        for number, one in enumerate(content):
            require(one, kind[0], where, f"{place}[{number}]")
    elif isinstance(kind, Each):
        for name, one in content.items():
            require(one, kind.kind, where, _under(place, name))
    elif isinstance(kind, dict):
        for name, one in kind.items():
            plain = name.removesuffix("?")
            if plain in content:
                require(content[plain], one, where, _under(place, plain))
            elif plain == name:
                raise InputError(f"{where}: has no {_under(place, name)}; wanted it there, as it was written")
    return content


def _is(content, kind):
    """Like isinstance, but true and false are no numbers, and whole numbers are numbers."""
    if isinstance(content, bool):
        return kind is bool
    return isinstance(content, int | float if kind is float else kind)


def _under(place, name):
    name = quoted(name)[1:-1]
    return f"{place}.{name}" if place else name
