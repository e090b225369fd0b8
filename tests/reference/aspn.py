"""ASPN as the paper writes it (Eq. 1-9), with loops and in float64.

Weights are a dictionary of plain arrays. E is [s ; z] -> hidden -> attention -> features, D is features -> hidden ->
(s_hat, z_hat), the critic is [x ; s] -> hidden -> 1; hidden layers are ReLU, or leaky with `slope`.
"""

import numpy as np

ACTIVATIONS = {"relu": lambda values: np.maximum(values, 0.0), "linear": lambda values: values}


# Networks.


def dense(rows, kernel, bias):
    return np.array([row @ kernel + bias for row in rows])


def leaky(rows, slope):
    return np.where(rows > 0, rows, slope * rows)


def attention_map(f, g, form):
    """Eq. (5): W [b, b] from k_ij = f_i . g_j; "row": shares over j (text, Fig. 2), "column": over i (as printed)."""
    k = np.array([[sum(a * b for a, b in zip(f_i, g_j, strict=True)) for g_j in g] for f_i in f])
    W = np.zeros_like(k)
    for i in range(k.shape[0]):
        for j in range(k.shape[1]):
            rivals = k[i, :] if form == "row" else k[:, j]
            W[i, j] = 1.0 / sum(np.exp(rival - k[i, j]) for rival in rivals)
    return W


def attend(W, h, alpha, form):
    """Eq. (6): "row" t_i = sum_j W_ij h_j, "column" t_j = sum_i W_ij h_i as printed; o = alpha t + (1 - alpha) h."""
    o = np.zeros_like(h)
    for row in range(len(h)):
        t = np.zeros(h.shape[1])
        for other in range(len(h)):
            t += (W[row, other] if form == "row" else W[other, row]) * h[other]
        o[row] = alpha * t + (1 - alpha) * h[row]
    return o


def attend_to(h, context, weights, alpha, form):
    """Eq. (5-6) for rows `h` that look at the rows of a given `context`, one row at a time.

    The row a result belongs to is i of f_i . g_j in the row form, and j in the column form.
    """
    ours, theirs = ("f", "g") if form == "row" else ("g", "f")
    o = np.zeros_like(h)
    for i, row in enumerate(h):
        query = dense(row[None], *weights[ours])[0]
        k = [float(np.dot(query, dense(other[None], *weights[theirs])[0])) for other in context]
        shares = [np.exp(value - max(k)) for value in k]
        t = sum(share / sum(shares) * other for share, other in zip(shares, context, strict=True))
        o[i] = alpha * t + (1 - alpha) * row
    return o


def hidden(weights, semantics, noise, slope=0.0):
    return leaky(dense(np.concatenate([semantics, noise], axis=1), *weights["hidden"]), slope)


def encode(weights, semantics, noise, *, alpha=None, form="row", output="relu", context=None, slope=0.0):
    """E(s, z), the rows attending to one another, or to `context` (semantics and noise) if given; alpha None: never."""
    h = hidden(weights, semantics, noise, slope)
    if alpha is not None and context is not None:
        h = attend_to(h, hidden(weights, *context, slope), weights, alpha, form)
    elif alpha is not None:
        W = attention_map(dense(h, *weights["f"]), dense(h, *weights["g"]), form)
        h = attend(W, h, alpha, form)
    return ACTIVATIONS[output](dense(h, *weights["out"]))


def decode(weights, features, output="relu", slope=0.0):
    """D(x): (s_hat, z_hat); the noise is never clipped, it is N(0, 1)."""
    h = leaky(dense(features, *weights["decoder_hidden"]), slope)
    return ACTIVATIONS[output](dense(h, *weights["decoder_semantics"])), dense(h, *weights["decoder_noise"])


def critic(weights, features, semantics, slope=0.0):
    pairs = np.concatenate([features, semantics], axis=1)
    return dense(leaky(dense(pairs, *weights["critic_hidden"]), slope), *weights["critic_out"])[:, 0]


def critic_input_gradient(weights, features, semantics, slope=0.0):
    """The gradient of D(x, s) with respect to x alone: the sum over hidden units u of v_u act'(u) W[x, u]."""
    W, b = weights["critic_hidden"]
    v = weights["critic_out"][0][:, 0]
    gradient = np.zeros_like(features)
    for i, pair in enumerate(np.concatenate([features, semantics], axis=1)):
        for u in range(W.shape[1]):
            slope_here = 1.0 if np.dot(pair, W[:, u]) + b[u] > 0 else slope
            gradient[i] += v[u] * slope_here * W[: features.shape[1], u]
    return gradient


# Losses.


def squared(target, got, reduction="mean"):
    """||target - got||^2: the mean over all elements, or the sum over elements and mean over rows."""
    total = 0.0
    for a, b in zip(target, got, strict=True):
        for one, other in zip(a, b, strict=True):
            total += (one - other) ** 2
    return total / (target.size if reduction == "mean" else len(target))


def visual_loss(x, x_hat, reduction="mean"):
    """Eq. (1)."""
    return squared(x, x_hat, reduction)


def semantic_loss(s, s_hat, reduction="mean"):
    """Eq. (2)."""
    return squared(s, s_hat, reduction)


def preservation_loss(s, s_cycle, x, x_cycle, reduction="mean"):
    """Eq. (3): s against D(E(s, z)) without its noise, x against E(D(x))."""
    return squared(s, s_cycle, reduction) + squared(x, x_cycle, reduction)


def gradient_penalty(gradients, form="squared"):
    """L_GP of Eq. (4): (||grad||^2 - 1)^2 as printed ("squared"), (||grad|| - 1)^2 with "norm"; mean over rows."""
    total = 0.0
    for gradient in gradients:
        norm2 = sum(value * value for value in gradient)
        total += ((norm2 if form == "squared" else np.sqrt(norm2)) - 1.0) ** 2
    return total / len(gradients)


def interpolate(real, fake, shares):
    """tau, `shares` [b, 1] of the real rows and the rest of the generated ones."""
    return np.array([share * a + (1 - share) * b for a, b, share in zip(real, fake, shares[:, 0], strict=True)])


def critic_loss(weights, x, x_hat, s, shares, beta, form="squared", slope=0.0):
    """-L_D of Eq. (4), which the critic minimizes."""
    tau = interpolate(x, x_hat, shares)
    penalty = gradient_penalty(critic_input_gradient(weights, tau, s, slope), form)
    return critic(weights, x_hat, s, slope).mean() - critic(weights, x, s, slope).mean() + beta * penalty


def adversarial_loss(weights, x_hat, s, slope=0.0):
    """The part of L_D that reaches E: -E[D(x_hat, s)]."""
    return -critic(weights, x_hat, s, slope).mean()


def scores(features, prototypes, decision):
    """[B, C], larger is nearer: "euclidean" is minus the squared distance, in order the same as the distance."""
    out = np.zeros((len(features), len(prototypes)))
    for i, x in enumerate(features):
        for k, p in enumerate(prototypes):
            dot = sum(a * b for a, b in zip(x, p, strict=True))
            out[i, k] = {
                "dot": dot,
                "cosine": dot / max(np.linalg.norm(x) * np.linalg.norm(p), 1e-30),
                "euclidean": -sum((a - b) ** 2 for a, b in zip(x, p, strict=True)),
            }[decision]
    return out


def cross_entropy(logits, labels, classes=None):
    """Eq. (8), mean over rows; the softmax runs over `classes`, all of them by default."""
    classes = range(logits.shape[1]) if classes is None else classes
    total = 0.0
    for row, label in zip(logits, labels, strict=True):
        top = max(row[c] for c in classes)
        total += top + np.log(sum(np.exp(row[c] - top) for c in classes)) - row[label]
    return total / len(labels)


def class_loss(x, x_hat, prototypes, labels, classes=None, decision="dot", scale=1.0):
    """Eq. (7): the real rows, then the generated ones."""
    return sum(cross_entropy(scale * scores(rows, prototypes, decision), labels, classes) for rows in (x, x_hat))


def inferred_class_loss(s_hat, semantics, labels, classes=None, scale=1.0):
    """Not in the paper, from its predecessor: the cross entropy of D(x) against the embeddings, by cosine."""
    return cross_entropy(scale * scores(s_hat, semantics, "cosine"), labels, classes)


def total(visual, semantic, preservation, adversarial, classes, theta=1.0, adversarial_weight=1.0):
    """Eq. (9)."""
    return visual + semantic + preservation + adversarial_weight * adversarial + theta * classes
