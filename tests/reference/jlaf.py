"""JLAF as the paper writes it (Eq. 3-9), with loops and in float64.

x [B, R, F] are the regions of pictures, k [C, A] the classes, h [C, F] their latents; where the paper has columns there
are rows. An encoder is a list of layers (kernel, bias, activation), a decoder is (kernel [F, A], bias [A]). The paper
does not say how large a product of a region and a latent may be, nor how sharp the softmax of Eq. (4) is: `sharpness`
and `tau`, both 1 as printed.
"""

import numpy as np

ACTIVATIONS = {
    "sigmoid": lambda value: 1.0 / (1.0 + np.exp(-value)),
    "tanh": lambda value: 2.0 / (1.0 + np.exp(-2.0 * value)) - 1.0,
    "linear": lambda value: value,
}


def dot(one, other):
    return sum(a * b for a, b in zip(one, other, strict=True))


def length(vector):
    return np.sqrt(dot(vector, vector))


def unit(vectors):
    """Each vector along the last axis divided by its length; zeros stay zeros."""
    out = np.array(vectors, np.float64)
    for place in np.ndindex(out.shape[:-1]):
        out[place] /= max(length(out[place]), 1e-12)
    return out


def powered(x, exponent):
    """Not in the paper: each number's size to a power, its sign kept."""
    out = np.array(x, np.float64)
    for place in np.ndindex(out.shape):
        out[place] = abs(out[place]) ** exponent * (1.0 if out[place] >= 0 else -1.0)
    return out


def cosine(one, other):
    """s of Eq. (4), (8) and (9); of a vector without a direction it is 0."""
    return dot(one, other) / max(length(one), 1e-12) / max(length(other), 1e-12)


def softmax(values):
    """Of one vector."""
    top = max(values)
    shares = [np.exp(value - top) for value in values]
    return np.array([share / sum(shares) for share in shares])


# The networks.


def dense(row, kernel, bias):
    return np.array([dot(row, kernel[:, j]) + bias[j] for j in range(kernel.shape[1])])


def encode(layers, k):
    """H = h_e(K), the first line of Eq. (3): [C, F]."""
    latents = []
    for row in k:
        for kernel, bias, activation in layers:
            row = ACTIVATIONS[activation](dense(row, kernel, bias))
        latents.append(row)
    return np.array(latents)


def attention(x, h, sharpness=1.0):
    """A of Eq. (3): [B, C, R]; each class of each picture shares out 1 among the regions."""
    return np.array([[softmax([sharpness * dot(region, h_c) for region in picture]) for h_c in h] for picture in x])


def attend(x, A):
    """X~ = X A of Eq. (3): [B, C, F], a feature of each picture for each class."""
    attended = np.zeros((*A.shape[:2], x.shape[2]))
    for b, c, r in np.ndindex(A.shape):
        attended[b, c] += A[b, c, r] * x[b, r]
    return attended


def predicted(x, h, decoder, sharpness=1.0):
    """g(x~_c) of each class: [B, C, A]; each is decoded from that class's own feature."""
    return np.array([[dense(row, *decoder) for row in picture] for picture in attend(x, attention(x, h, sharpness))])


def scores(x, k, layers, decoder, sharpness=1.0):
    """s(g(x~_c), k_c) of Eq. (8): [B, C]."""
    found = predicted(x, encode(layers, k), decoder, sharpness)
    return np.array([[cosine(k_hat, k_c) for k_hat, k_c in zip(row, k, strict=True)] for row in found])


# The losses.


def class_loss(scores, labels, classes, tau=1.0):
    """Eq. (4): minus the mean over rows of log softmax; its denominator is over `classes`, the seen ones."""
    total = 0.0
    for row, label in zip(scores, labels, strict=True):
        total -= np.log(softmax([tau * row[c] for c in classes])[list(classes).index(label)])
    return total / len(labels)


def manifold_loss(h, k, gram="raw", reduction="sum"):
    """Eq. (5), of seen classes: |H'H - K'K|^2 as printed ("raw", "sum"), of cosines, or the mean over all pairs."""
    product = dot if gram == "raw" else cosine
    total = sum((product(h[i], h[j]) - product(k[i], k[j])) ** 2 for i in range(len(k)) for j in range(len(k)))
    return total / (len(k) ** 2 if reduction == "mean" else 1)


def reconstruction_loss(k, h, decoder, reduction="sum"):
    """Eq. (6), of all classes: |K - h_d(H)|^2 as printed ("sum"), or the mean over entries."""
    total = 0.0
    for k_c, h_c in zip(k, h, strict=True):
        for wanted, got in zip(k_c, dense(h_c, *decoder), strict=True):
            total += (wanted - got) ** 2
    return total / (k.size if reduction == "mean" else 1)


def total(classes, manifold, reconstruction, alpha=0.5, eta=1.0):
    """Eq. (7)."""
    return classes + alpha * manifold + eta * reconstruction


def decide(scores, unseen, gamma=0.0):
    """Eq. (9), and at gamma 0 Eq. (8): the class with the highest score, gamma being added to those `unseen`."""
    best = []
    for row in scores:
        raised = [score + (gamma if is_unseen else 0.0) for score, is_unseen in zip(row, unseen, strict=True)]
        best.append(raised.index(max(raised)))
    return np.array(best)
