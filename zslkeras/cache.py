"""The cache of things that can be made again: $XDG_CACHE_HOME/zslkeras, or ~/.cache/zslkeras."""

import os
import pathlib


def folder(*names):
    """Makes a folder in the cache; raises OSError or RuntimeError if there is no home or it cannot be written."""
    root = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache")
    path = root.joinpath("zslkeras", *names)
    path.mkdir(parents=True, exist_ok=True)
    return path
