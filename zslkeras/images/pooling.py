"""Maps [B, H, W, F] to features [B, F]: one number for all places of a map, in one or several ways side by side."""

import tensorflow as tf

from zslkeras.names import POOLINGS

MEAN = POOLINGS[:1]  # what is taken if nothing else is asked for
# Radenovic, Tolias and Chum, Fine-tuning CNN Image Retrieval with No Human Annotation (TPAMI 2019), start from 3.
_POWER = 3.0


def pooled(maps, pooling=MEAN):
    """Features made of maps.

    Args:
        maps: list of tensors [B, H, W, F].
        pooling: some of names.POOLINGS: "mean", "max", and "gem", the generalised mean with p = 3, which takes numbers
            below 0 as 0.

    Returns:
        float32 [B, pooled_width]: every pooling of the first of the maps, then those of the next. If these are several
        parts, each has unit length. A single part stays as it is.
    """
    parts = [_FUNCTIONS[name](tf.cast(one, tf.float32)) for one in maps for name in pooling]
    return parts[0] if len(parts) == 1 else tf.concat([_unit(part) for part in parts], axis=1)


def pooled_width(widths, pooling=MEAN):
    """How many features `pooled` makes of maps with these F."""
    return sum(widths) * len(pooling)


def _generalised_mean(maps):
    return tf.reduce_mean(tf.nn.relu(maps) ** _POWER, axis=[1, 2]) ** (1 / _POWER)


def _unit(part):
    """Rows of unit length; a row of zeros stays one."""
    return tf.math.divide_no_nan(part, tf.norm(part, axis=1, keepdims=True))


_FUNCTIONS = {
    "mean": lambda maps: tf.reduce_mean(maps, axis=[1, 2]),
    "max": lambda maps: tf.reduce_max(maps, axis=[1, 2]),
    "gem": _generalised_mean,
}
