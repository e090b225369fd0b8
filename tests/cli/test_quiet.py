"""The ground that commands stand on."""

import os
import subprocess
import sys

from tests.support.commands import ROOT, start

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


def test_a_command_prints_nothing_of_tensorflow(tiny_root, tmp_path):
    args = ["--model", "eszsl", "--dataset", "flo", "--data_root", tiny_root, "--set", "gammas=1", "--out", "run"]
    done = start("experiments.run", *args, cwd=tmp_path, TF_CPP_MIN_LOG_LEVEL=None).wait_for(120)
    assert done.returncode == 0, done.err
    lines = [line for line in done.err.replace("\r", "\n").splitlines() if line.strip()]
    assert lines and all(line.startswith(("eszsl seed", "prototypes seed")) for line in lines), lines  # progress alone
