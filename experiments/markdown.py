"""What generated pages share: wrapped text, tables, and the marks of what is generated in a hand-written page."""

import re
import textwrap

WIDTH = 118  # of a line of text


def marks(command):
    """The two lines between which a command puts what it makes."""
    return f"<!-- made by python -m experiments.{command} -->", "<!-- end of what it made -->"


def between(command, text, made):
    """A text in which `made` stands between the marks of a command; the text itself if it has no marks."""
    first, last = map(re.escape, marks(command))
    return re.sub(f"(?<={first}\n).*?(?={last})", lambda _: made, text, flags=re.DOTALL)


def filled(text, indent=""):
    """One paragraph, or one item of a list, in lines of WIDTH letters; the later lines are indented."""
    text = " ".join(text.split())
    return textwrap.fill(text, WIDTH, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)


def table(columns, rows):
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(str(cell) for cell in line)} |" for line in lines)
