"""Where things are kept that can be made again: $XDG_CACHE_HOME/zslkeras, ~/.cache/zslkeras."""

import os
import pathlib


def folder(*names):
    """A folder of the cache, made; OSError or RuntimeError where there is no home or it cannot be written."""
    root = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache")
    path = root.joinpath("zslkeras", *names)
    path.mkdir(parents=True, exist_ok=True)
    return path
