"""The record beside features, maps and levels: how they were made. Other extractors may have written one too."""

from zslkeras import atomic

_KIND = {
    "backbone?": str,
    "weights?": str,
    "preprocessing?": str,
    "size?": int,
    "layers?": [str],
    "dtype?": str,
    "pooling?": [str],
    "pool_layers?": [str],
    "finite?": bool,
}


def read(path):
    """What a record says; {} where there is none."""
    return atomic.read_json(path, _KIND)
