"""zslkeras COMMAND: the console command. Each command is a module beside this one."""

import importlib
import sys

from zslkeras.errors import did_you_mean
from zslkeras.version import __version__

COMMANDS = ("prepare", "train", "predict", "export", "serve")


def main(argv=None):
    """Runs one command; exits with 2 for wrong usage."""
    argv = list(sys.argv[1:] if argv is None else argv)
    if argv and argv[0] in COMMANDS:
        module = _module(argv[0])
        module.COMMAND(module.main, argv[1:])
    elif argv and argv[0] == "--version":
        print(__version__)
    elif argv and argv[0] in ("--help", "-h", "help"):
        print(_help())
    else:
        got = f"no command {argv[0]!r}; {did_you_mean(argv[0], COMMANDS)}" if argv else "no command"
        print(f"error: {got}; see zslkeras --help", file=sys.stderr)
        sys.exit(2)


def _help():
    lines = ["usage: zslkeras COMMAND [flags]", ""]
    for name in COMMANDS:
        lines.append(f"  {name:<9} {_module(name).__doc__.splitlines()[0].rpartition(': ')[2]}")
    return "\n".join([*lines, "", "zslkeras COMMAND --help says more; zslkeras --version prints the version"])


def _module(name):
    return importlib.import_module(f"zslkeras.cli.{name}")
