"""Runs commands in processes of their own that have TensorFlow imported from the start, which saves five seconds each.

Each is forked from one server, in which nothing is ever computed. It gets its own arguments, environment, folder and
output, can be killed like any other, and ends without a word to the others.
"""

import contextlib
import multiprocessing
import os
import pathlib
import runpy
import shutil
import sys
import tempfile

from tests.support.commands import ROOT

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["tests.support.warm"])


def start(module, *args, cwd, **env):
    """As `commands.start`: `python -m MODULE ARGS` in the folder `cwd`, with `wait_for(seconds)`."""
    environment = {**os.environ, "XDG_CACHE_HOME": str(cwd), **env}
    with contextlib.chdir(ROOT):  # from where the server imports
        return _Process(module, [str(arg) for arg in args], str(cwd), environment)


class _Process:
    def __init__(self, *command):
        self.folder = pathlib.Path(tempfile.mkdtemp())
        self.process = _CONTEXT.Process(target=_run, args=(*command, str(self.folder)))
        self.process.start()

    def wait_for(self, seconds):
        self.process.join(seconds)
        late = self.process.exitcode is None
        if late:
            self.process.kill()
            self.process.join()
        self.returncode = self.process.exitcode
        self.out, self.err = map(_text, (self.folder / "out", self.folder / "err"))
        shutil.rmtree(self.folder)
        assert not late, f"still running after {seconds} s:\n{self.out}\n{self.err}"
        return self


def _text(path):
    return path.read_text() if path.exists() else ""  # killed before it opened it


def _run(module, args, cwd, environment, folder):
    for number, name in ((1, "out"), (2, "err")):
        os.dup2(os.open(os.path.join(folder, name), os.O_WRONLY | os.O_CREAT), number)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(cwd)
    sys.argv = [module, *args]
    runpy.run_module(module, run_name="__main__", alter_sys=True)
