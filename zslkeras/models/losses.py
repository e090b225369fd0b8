"""Losses of more than one method."""

import tensorflow as tf


def self_calibration(logits, seen_mask):
    """-log of the mean over rows of the probability of unseen classes, as in the released code of this family.

    Args:
        logits: [B, K], with an indicator of unseen classes added; B are all rows of the global batch, as the mean is
            inside the log.
        seen_mask: [K], 1.0 where a class is seen.
    """
    unseen = tf.where(seen_mask > 0, logits.dtype.min, logits)
    mass = tf.reduce_logsumexp(unseen, axis=1) - tf.reduce_logsumexp(logits, axis=1)
    rows = tf.cast(tf.shape(logits)[0], logits.dtype)
    return tf.math.log(rows) - tf.reduce_logsumexp(mass)


def self_calibration_as_printed(logits, seen_mask):
    """The mean over rows of -sum over unseen classes of log p, as DRMN prints it; MSDN prints the other sign."""
    return -tf.reduce_mean(tf.reduce_sum((1.0 - seen_mask) * tf.nn.log_softmax(logits), axis=1))
