"""The ground that commands stand on."""

import os
import subprocess
import sys

from tests.support.commands import ROOT

CODE = """
import sys
from zslkeras.cli import quiet
quiet.in_utf8()
print(sys.getfilesystemencoding(), sys.argv[1:])
"""


def test_names_beyond_ascii_are_the_same_in_every_locale():
    plain = {**os.environ, "LC_ALL": "POSIX", "PYTHONPATH": str(ROOT)}
    for more in ({"PYTHONUTF8": "0"}, {"PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}, {}):
        command = [sys.executable, "-c", CODE, "vögel"]
        done = subprocess.run(command, env=plain | more, capture_output=True, encoding="utf-8", timeout=60)
        assert (done.stdout, done.stderr) == ("utf-8 ['vögel']\n", ""), more
