"""A fixed bank of filters: images to feature maps without any trained weight.

An image is 64x64 RGB in -0.5..0.5. Three opponent channels are weighted sums of it (`OPPONENTS`): light, red against
green, blue against yellow. Each channel goes through seven 9x9 kernels (`kernels`): a Gaussian of standard deviation 2
that sums to one, and six even Gabor functions of wavelength 5 under the same Gaussian, with stripes turned by 0, 30,
..., 150 degrees from upright, shifted and scaled so that they sum to zero and their absolute values to one. Each of the
21 answers is split into its positive and its negative part: F = 42 values per position, first the 21 positive parts.

The bank sees the image at 64, 32 and 16 pixels, each the 2x2 average of the one before, with mirrored borders. Means
over 4x4 positions then make the three `levels`: [N, 16, 16, F], [N, 8, 8, F], [N, 4, 4, F], fine to coarse. `maps`
[N, 8, 8, 3F] stacks them, the first averaged 2x2, the last repeated 2x2. `pooled` [N, 6F] is the mean of the maps over
positions, then their standard deviation.
"""

import numpy as np
import tensorflow as tf

from zslkeras import graphs

SIDE = 64
OPPONENTS = np.array([[1 / 3, 1 / 3, 1 / 3], [1 / 2, -1 / 2, 0], [-1 / 4, -1 / 4, 1 / 2]])  # [channel, RGB]
KERNEL_SIDE = 9
ORIENTATIONS = 6


def kernels():
    """The bank's weights, [9, 9, 3, 21]; the last axis has the channels in order, each with its seven kernels."""
    reach = KERNEL_SIDE // 2
    y, x = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    blob = np.exp(-(x**2 + y**2) / (2 * 2.0**2))
    blob /= blob.sum()
    planes = [blob]
    for angle in np.pi * np.arange(ORIENTATIONS) / ORIENTATIONS:
        wave = np.cos(2 * np.pi / 5 * (x * np.cos(angle) + y * np.sin(angle)))
        gabor = blob * (wave - (blob * wave).sum())
        planes.append(gabor / np.abs(gabor).sum())
    weights = np.einsum("khw,oc->hwcok", np.stack(planes), OPPONENTS)
    return weights.reshape(KERNEL_SIDE, KERNEL_SIDE, 3, -1).astype(np.float32)


def levels(pictures, batch_size=128):
    """Three maps of each image, fine to coarse.

    Args:
        pictures: uint8 [N, 64, 64, 3].
        batch_size: images at a time; changes memory, not results.

    Returns:
        float32 [N, 16, 16, 42], [N, 8, 8, 42] and [N, 4, 4, 42].
    """
    return _in_batches(_levels, pictures, batch_size)


def maps(pictures, batch_size=128):
    """The three levels at one resolution, float32 [N, 8, 8, 126]."""
    return _in_batches(_maps, pictures, batch_size)


def pooled(pictures, batch_size=128):
    """Mean and standard deviation of the maps over positions, float32 [N, 252]."""
    return _in_batches(_pooled, pictures, batch_size)


def answers(pictures, kind):
    """The bank's answer to a tensor of images, in a graph: "features" as `pooled`, "maps" or "levels"."""
    return {"features": _pooled, "maps": _maps, "levels": _levels}[kind](pictures)


def _in_batches(function, pictures, batch_size):
    if pictures.dtype != np.uint8 or pictures.shape[1:] != (SIDE, SIDE, 3):
        raise ValueError(f"images: got {pictures.dtype} {pictures.shape}; wanted uint8 (N, {SIDE}, {SIDE}, 3)")
    done = [function(pictures[i : i + batch_size]) for i in range(0, len(pictures), batch_size)]
    return tf.nest.map_structure(lambda *parts: np.concatenate([part.numpy() for part in parts]), *done)


@graphs.function(input_signature=[tf.TensorSpec([None, SIDE, SIDE, 3], tf.uint8)])
def _levels(pictures):
    reach = KERNEL_SIDE // 2
    image = tf.cast(pictures, tf.float32) / 255 - 0.5  # so that light has both signs and no answer is always zero
    answers = []
    for scale in range(3):
        if scale:
            image = tf.nn.avg_pool2d(image, 2, 2, "VALID")
        # Mirrored, because a border of zeros would look like an edge to every oriented filter.
        padded = tf.pad(image, [[0, 0], [reach, reach], [reach, reach], [0, 0]], "SYMMETRIC")
        answer = tf.nn.conv2d(padded, kernels(), 1, "VALID")
        both_signs = tf.concat([tf.nn.relu(answer), tf.nn.relu(-answer)], axis=-1)
        answers.append(tf.nn.avg_pool2d(both_signs, 4, 4, "VALID"))
    return tuple(answers)


@graphs.function(input_signature=[tf.TensorSpec([None, SIDE, SIDE, 3], tf.uint8)])
def _maps(pictures):
    fine, middle, coarse = _levels(pictures)
    repeated = tf.repeat(tf.repeat(coarse, 2, axis=1), 2, axis=2)
    return tf.concat([tf.nn.avg_pool2d(fine, 2, 2, "VALID"), middle, repeated], axis=-1)


@graphs.function(input_signature=[tf.TensorSpec([None, SIDE, SIDE, 3], tf.uint8)])
def _pooled(pictures):
    mean, variance = tf.nn.moments(_maps(pictures), [1, 2])
    return tf.concat([mean, tf.sqrt(variance)], axis=-1)
