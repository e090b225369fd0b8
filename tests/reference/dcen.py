"""DCEN in loops and in float64, as the paper prints it (Eq. 3-8), with means over pictures where it has sums.

Pictures come as f(I) [B, D], classes as h(a) [S, D] or attributes [S, A]; labels are places among the classes given.
A layer of fully connected blocks is a list of dicts: kernel, bias (or None), and gamma, beta, mean, variance, epsilon
of its normalisation, or None where there is none.
"""

import numpy as np


def cosine(one, other):
    """Of two vectors; 0 where one of them has no direction."""
    lengths = np.sqrt(sum(x * x for x in one)) * np.sqrt(sum(x * x for x in other))
    return sum(x * y for x, y in zip(one, other, strict=True)) / lengths if lengths else 0.0


def distance(features, classes):
    """d = 1 - cosine: [B, K]."""
    return np.array([[1.0 - cosine(f, h) for h in classes] for f in features])


# Semantic contrastive module.


def mask(attributes, uniform_class, uniform_element, probability, sigma):
    """a_hat: a class is chosen with `probability`, and each element of a chosen one is lost with chance `sigma`."""
    out = np.array(attributes, np.float64)
    for c, a in np.ndindex(out.shape):
        if uniform_class[c] < probability and uniform_element[c, a] < sigma:
            out[c, a] = 0.0
    return out


def semantic(distances, labels):
    """Eq. (1) with h(a) for a: the own class's distance, mean over pictures."""
    return sum(row[y] for row, y in zip(distances, labels, strict=True)) / len(distances)


def triplet(distances, labels):
    """L_sa, Eq. (3): the own class's distance minus that of the nearest other one, mean over pictures."""
    total = 0.0
    for row, y in zip(distances, labels, strict=True):
        total += row[y] - min(d for k, d in enumerate(row) if k != y)
    return total / len(distances)


def prediction(predicted, attributes, norm, of_classes=None):
    """L_sp, Eq. (4), mean over pictures: "printed" is the norm of what is missed, "squared" its square, and "relative"
    that in units of the mean square of `of_classes`."""
    total = 0.0
    for got, wanted in zip(predicted, attributes, strict=True):
        squares = sum((x - y) ** 2 for x, y in zip(got, wanted, strict=True))
        total += np.sqrt(squares) if norm == "printed" else squares
    if norm == "relative":
        total /= sum(sum(x * x for x in row) for row in of_classes) / len(of_classes)
    return total / len(predicted)


def block(rows, layer, training, activated=True):
    """FC, normalisation over `rows` in training, by running statistics otherwise, ReLU: [N, in] -> [N, out]."""
    out = np.array([[sum(row * column) for column in layer["kernel"].T] for row in np.asarray(rows, np.float64)])
    if layer["bias"] is not None:
        out = out + layer["bias"]
    if layer["gamma"] is not None:
        for column in range(out.shape[1]):
            values = out[:, column].copy()
            mean = sum(values) / len(values) if training else layer["mean"][column]
            variance = sum((values - mean) ** 2) / len(values) if training else layer["variance"][column]
            scaled = (values - mean) / np.sqrt(variance + layer["epsilon"])
            out[:, column] = layer["gamma"][column] * scaled + layer["beta"][column]
    return np.where(out > 0, out, 0.0) if activated else out


def embed(attributes, layers, training):
    """h: K blocks, of which the last keeps its ReLU as f has one."""
    for layer in layers:
        attributes = block(attributes, layer, training)
    return attributes


def predict(features, semantics, visual, semantic, decoder, training):
    """h_hat of Fig. 3: [block(f) ; block(h)], then a decoder that ends in a linear layer."""
    rows = np.concatenate([block(features, visual, training), block(semantics, semantic, training)], axis=1)
    for place, layer in enumerate(decoder):
        rows = block(rows, layer, training, activated=place < len(decoder) - 1)
    return rows


# Visual contrastive module.


def info_nce(queries, keys, queue, tau):
    """L_id, Eq. (5), mean over pictures: the negatives are the keys of previous batches alone."""
    total = 0.0
    for query, key in zip(queries, keys, strict=True):
        positive = cosine(query, key) / tau
        logits = [positive] + [cosine(query, other) / tau for other in queue]
        highest = max(logits)
        total += highest + np.log(sum(np.exp(logit - highest) for logit in logits)) - positive
    return total / len(queries)


def enqueue(queue, position, keys):
    """One key after the other, each over the oldest one."""
    queue = np.array(queue, np.float64)
    for key in keys:
        queue[position] = key
        position = (position + 1) % len(queue)
    return queue, position


def ema(old, new, momentum):
    """Eq. (6)."""
    out = np.array(old, np.float64)
    for place in np.ndindex(out.shape):
        out[place] = momentum * out[place] + (1.0 - momentum) * new[place]
    return out


def total(identity, alignment, predicted, lambda1, lambda2):
    """Eq. (7)."""
    return lambda1 * identity + alignment + lambda2 * predicted


def decide(features, classes):
    """Eq. (8): the nearest class."""
    return np.array([min(range(len(classes)), key=lambda k: row[k]) for row in distance(features, classes)])


# The optimizer that the authors' later code was trained with.


def adam(weight, gradients, rate, beta1, decay, beta2=0.999, epsilon=1e-8):
    """`weight` after one step for each of `gradients`, functions of the weight; decay is part of the gradient."""
    weight = np.array(weight, np.float64)
    mean, square = np.zeros_like(weight), np.zeros_like(weight)
    for step, gradient in enumerate(gradients, 1):
        g = gradient(weight) + decay * weight
        for place in np.ndindex(weight.shape):
            mean[place] = beta1 * mean[place] + (1 - beta1) * g[place]
            square[place] = beta2 * square[place] + (1 - beta2) * g[place] ** 2
            spread = np.sqrt(square[place] / (1 - beta2**step)) + epsilon
            weight[place] -= rate * mean[place] / (1 - beta1**step) / spread
    return weight
