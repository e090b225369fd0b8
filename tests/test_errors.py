"""What goes wrong is said in one sentence on one line."""

from zslkeras.errors import InputError


def test_names_neither_end_the_line_nor_steer_the_terminal():
    error = InputError("a\nb.csv: class \x1b[2J\u2028 is café 蝶; wanted a name")
    assert str(error) == "a\\nb.csv: class \\x1b[2J\\u2028 is café 蝶; wanted a name"
