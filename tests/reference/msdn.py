"""MSDN in loops and in float64, as the paper prints it (Eq. 1-11) and as its released code computes it.

x [B, R, F] are regions, v [A, W] the attributes' word vectors, z [K, A] the classes; maps of weights are word vectors
by channels, [W, F]. The code's maps are attend1 and score1 (attribute to visual), attend2 and score2 (visual to
attribute); the paper's are W1, W2, W3, W4 and W_att, of which those that it applies from the left of a region, W3, W4
and W_att, are written [F, W].
"""

import numpy as np


def unit(vectors):
    """Rows along the last axis divided by the larger of their norm and 1e-12."""
    out = np.array(vectors, np.float64)
    for place in np.ndindex(out.shape[:-1]):
        out[place] /= max(np.sqrt(sum(value * value for value in out[place])), 1e-12)
    return out


def softmax(values):
    """Of one vector."""
    shares = np.exp(values - np.max(values))
    return shares / shares.sum()


def log_softmax(values):
    shifted = values - np.max(values)
    return shifted - np.log(np.exp(shifted).sum())


# The two branches: scores of attributes [B, A] and attention [B, A, R].


def products(v, W, x):
    """v_a^T W x_r: [B, A, R]."""
    out = np.zeros((len(x), len(v), x.shape[1]))
    for b, a, r in np.ndindex(out.shape):
        out[b, a, r] = v[a] @ W @ x[b, r]
    return out


def over_regions(weights):
    """Each attribute's attention sums to one over the regions."""
    return np.array([[softmax(of_attribute) for of_attribute in picture] for picture in weights])


def over_attributes(weights):
    """Each region's attention sums to one over the attributes."""
    return np.array([[softmax(of_region) for of_region in picture.T] for picture in weights]).transpose(0, 2, 1)


def code_branch(x, v, attend, score, normalize):
    """sum_r t[b, a, r] v_a^T score x_r with t of v_a^T attend x_r; the branches differ in where t sums to one."""
    attention, scores = normalize(products(v, attend, x)), products(v, score, x)
    out = np.zeros(scores.shape[:2])
    for b, a, r in np.ndindex(scores.shape):
        out[b, a] += attention[b, a, r] * scores[b, a, r]
    return out, attention


def paper_first_branch(x, v, W1, W2):
    """Eq. (1-3), the softmax over attributes as its denominator says."""
    attention = over_attributes(products(v, W1, x))
    psi = np.zeros(attention.shape[:2])
    for b, k in np.ndindex(psi.shape):
        F_k = sum(attention[b, k, r] * x[b, r] for r in range(x.shape[1]))  # Eq. (2)
        psi[b, k] = v[k] @ W2 @ F_k  # Eq. (3)
    return psi, attention


def paper_second_branch(x, v, W3, W4, W_att):
    """Eq. (4-6), the softmax over regions as its denominator says, and Psi = Psi_bar (V^T W_att A)."""
    attention = over_regions(products(v, W3.T, x))
    out = np.zeros(attention.shape[:2])
    for b, picture in enumerate(x):
        for r, v_r in enumerate(picture):
            S_r = sum(attention[b, k, r] * v[k] for k in range(len(v)))  # Eq. (5)
            Psi_bar_r = v_r @ W4 @ S_r  # Eq. (6)
            for k in range(len(v)):
                out[b, k] += Psi_bar_r * (v_r @ W_att @ v[k])
    return out, attention


def pooled(x, v, W):
    """The baseline of Table 2: the mean over regions, mapped to scores of attributes."""
    return products(v, W, np.array([[sum(picture) / len(picture)] for picture in x]))[..., 0]


def logits(psi, z):
    """f(x) . z^c: [B, K]."""
    return np.array([[sum(p * s for p, s in zip(row, of_class, strict=True)) for of_class in z] for row in psi])


def mask(seen):
    """The indicator of Eq. (7): 1 where a class is unseen, -1 where it is seen."""
    return np.array([-1.0 if is_seen else 1.0 for is_seen in seen])


def fused(first, second, alphas, z, seen):
    """What the arg max of Eq. (11) is taken of: alpha_1 f_1 z + alpha_2 f_2 z, and the indicator."""
    return alphas[0] * logits(first, z) + alphas[1] * logits(second, z) + mask(seen)


# Losses of logits without the mask [B, K].


def cross_entropy(scores, labels, classes=None):
    """The first term of Eq. (7); its softmax is over the seen `classes` as printed, or over all K as in the code."""
    classes = list(range(scores.shape[1])) if classes is None else list(classes)
    return -np.mean([log_softmax(row[classes])[classes.index(y)] for row, y in zip(scores, labels, strict=True)])


def calibration(scores, seen):
    """As in the code: -log of the batch's mean of the mass on unseen classes, the mask being part of the logits."""
    mass = 0.0
    for row in scores:
        mass += sum(p for p, is_seen in zip(softmax(row + mask(seen)), seen, strict=True) if not is_seen)
    return -np.log(mass / len(scores))


def printed_calibration(scores, seen):
    """The second term of Eq. (7) with the sign that its text asks for: -mean over rows of sum over unseen of log q."""
    total = 0.0
    for row in scores:
        total -= sum(q for q, is_seen in zip(log_softmax(row + mask(seen)), seen, strict=True) if not is_seen)
    return total / len(scores)


def weighted_l2(first, second):
    """As in the code: the mean over rows of sum_k |d_k|^3 / |d|; rows that agree give 0."""
    total = 0.0
    for d in first - second:
        norm = np.sqrt(sum(value**2 for value in d))
        total += sum(abs(value) ** 3 for value in d) / norm if norm else 0.0
    return total / len(first)


def divergence(p, q):
    """D_KL(p || q) of Eq. (9), of one pair of distributions."""
    return sum(a * np.log(a / b) for a, b in zip(p, q, strict=True) if a > 0)


def jensen_shannon(first, second, seen):
    """As in the code: of the softmax over all K with the mask, against the mean of both; mean over rows."""
    total = 0.0
    for one, other in zip(first, second, strict=True):
        p, q = softmax(one + mask(seen)), softmax(other + mask(seen))
        total += (divergence(p, (p + q) / 2) + divergence(q, (p + q) / 2)) / 2
    return total / len(first)


def symmetrised_divergence(first, second, classes):
    """The first part of Eq. (8), of the softmax over all K; Eq. (9) sums over the seen `classes` as printed."""
    total = 0.0
    for one, other in zip(first, second, strict=True):
        p, q = softmax(one)[classes], softmax(other)[classes]
        total += (divergence(p, q) + divergence(q, p)) / 2
    return total / len(first)


def plain_l2(first, second):
    """The second part of Eq. (8): the mean over rows of |p - q|^2, of the softmax over all K."""
    return np.mean([sum((softmax(one) - softmax(other)) ** 2) for one, other in zip(first, second, strict=True)])


def total(cross_entropies, calibrations, distillation, calibration_weight, distillation_weight):
    """Eq. (10), with Eq. (7) of both branches."""
    return sum(cross_entropies) + calibration_weight * sum(calibrations) + distillation_weight * distillation


# The optimizer that MSDN was trained with.


def rmsprop(weight, gradients, rate, momentum, decay, rho=0.99, epsilon=1e-8):
    """`weight` after one step for each of `gradients`, functions of the weight.

    Decay is part of the gradient, epsilon outside of the root, and the rate outside of the momentum.
    """
    weight = np.array(weight, np.float64)
    square, moment = np.zeros_like(weight), np.zeros_like(weight)
    for gradient in gradients:
        g = gradient(weight) + decay * weight
        for place in np.ndindex(weight.shape):
            square[place] = rho * square[place] + (1 - rho) * g[place] ** 2
            moment[place] = momentum * moment[place] + g[place] / (np.sqrt(square[place]) + epsilon)
            weight[place] -= rate * moment[place]
    return weight
