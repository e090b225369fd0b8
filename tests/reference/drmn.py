"""DRMN as the paper writes it (Eq. 1-11 and its Algorithm 1), with loops and in float64.

Regions are arrays v [B, R, C], prototypes p [A, C]; matrices stand as printed, and multiply columns from the left.
"""

import numpy as np


def dense(rows, kernel, bias=0.0):
    """Rows [..., D] through a kernel [D, E]."""
    return np.asarray(rows) @ kernel + bias


def softmax(values):
    shares = np.exp(np.asarray(values) - np.max(values))
    return shares / shares.sum()


def sigmoid(values):
    return 1.0 / (1.0 + np.exp(-values))


def standard(row, epsilon=0.0):
    """`norm` of Eq. (3), the normal distribution: mean 0 and variance 1 over channels."""
    return (row - row.mean()) / np.sqrt(row.var() + epsilon)


def layer_norm(row, scale=1.0, shift=0.0, epsilon=0.0):
    return standard(row, epsilon) * scale + shift


# Levels.


def halved(maps):
    """[B, 2H, 2W, C] -> [B, H, W, C], each cell the mean of four."""
    B, H, W, C = maps.shape
    out = np.zeros((B, H // 2, W // 2, C))
    for i in range(H // 2):
        for j in range(W // 2):
            out[:, i, j] = maps[:, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2].mean(axis=(1, 2))
    return out


def strided(maps, kernel):
    """A convolution [3, 3, F, C] in steps of two cells: [B, 2H, 2W, F] -> [B, H, W, C], zeros beyond the far edges."""
    B, H, W, _ = maps.shape
    out = np.zeros((B, H // 2, W // 2, kernel.shape[-1]))
    for i in range(H // 2):
        for j in range(W // 2):
            for y in range(min(3, H - 2 * i)):
                for x in range(min(3, W - 2 * j)):
                    out[:, i, j] += maps[:, 2 * i + y, 2 * j + x] @ kernel[y, x]
    return out


def stretched(maps, down, right):
    """[B, H, W, C] -> [B, H down, W right, C], each cell so many times."""
    B, H, W, C = maps.shape
    out = np.zeros((B, H * down, W * right, C))
    for i in range(H * down):
        for j in range(W * right):
            out[:, i, j] = maps[:, i // down, j // right]
    return out


def batch_norm(values, scale, shift, mean=None, variance=None, epsilon=0.0):
    """Per channel over all other axes, with the moments of `values` unless others are given."""
    flat = values.reshape(-1, values.shape[-1])
    mean = flat.mean(0) if mean is None else mean
    variance = flat.var(0) if variance is None else variance
    return (values - mean) / np.sqrt(variance + epsilon) * scale + shift


def fused(parts, residual):
    """The fused feature: the pixel-wise addition of the projected levels and of the level they are projected to."""
    out = residual.astype(np.float64).copy()
    for part in parts:
        out += part
    return out


# Dual attention.


def spatial_attention(p, W1, v):
    """Eq. (1-2): the attention maps [B, A, R] and the semantic features k [B, A, C]."""
    B, R, C = v.shape
    shares, k = np.zeros((B, len(p), R)), np.zeros((B, len(p), C))
    for i in range(B):
        for a in range(len(p)):
            shares[i, a] = softmax([p[a] @ W1 @ v[i, r] for r in range(R)])
            for r in range(R):
                k[i, a] += shares[i, a, r] * v[i, r]
    return shares, k


def channel_descriptor(p_a, v_i, epsilon=0.0):
    """Eq. (3) for one attribute and one picture [R, C]."""
    return standard(p_a, epsilon) + standard(sum(v_i) / len(v_i), epsilon)


def channel_attention(p, v, W2, W3, epsilon=0.0):
    """Eq. (4): eta [B, A, C], each descriptor through the bottleneck."""
    eta = np.zeros((len(v), len(p), v.shape[2]))
    for i in range(len(v)):
        for a in range(len(p)):
            eta[i, a] = sigmoid(W3 @ np.maximum(W2 @ channel_descriptor(p[a], v[i], epsilon), 0.0))
    return eta


# Semantic interaction.


def attention(queries, keys, values):
    """[T, D] each: softmax(q k^T / sqrt(D)) v, one query at a time."""
    out = np.zeros((len(queries), values.shape[1]))
    for t, query in enumerate(queries):
        for share, value in zip(softmax(keys @ query / np.sqrt(len(query))), values, strict=True):
            out[t] += share * value
    return out


def multi_head(tokens, weights, heads):
    """MHSA of tokens [T, C]; "query", "key", "value" and "output" are (kernel [C, C], bias), heads side by side."""
    queries, keys, values = (dense(tokens, *weights[name]) for name in ("query", "key", "value"))
    width = queries.shape[1] // heads
    parts = [slice(head * width, (head + 1) * width) for head in range(heads)]
    return dense(
        np.concatenate([attention(queries[:, s], keys[:, s], values[:, s]) for s in parts], axis=1), *weights["output"]
    )


def encoder_layer(tokens, weights, heads, epsilon=0.0, factors=(1.0, 1.0, 1.0)):
    """Eq. (5-6) for one sequence [T, C]; "first" and "second" are the MLP, "norm1" and "norm2" (scale, shift).

    `factors` are those of dropout: of what was attended to, of the MLP's hidden units, and of its output.
    """
    mixed = factors[0] * multi_head(tokens, weights, heads) + tokens
    mixed = np.array([layer_norm(row, *weights["norm1"], epsilon) for row in mixed])
    hidden = factors[1] * np.maximum(dense(mixed, *weights["first"]), 0.0)
    out = factors[2] * dense(hidden, *weights["second"]) + mixed
    return np.array([layer_norm(row, *weights["norm2"], epsilon) for row in out])


def interact(H, weights, heads, epsilon=0.0, factors=(1.0, 1.0, 1.0)):
    """SIT: H [B, A, C] as one sequence of B A tokens; `factors` [B, A, ...] or none."""
    B, A, C = H.shape
    factors = [f if np.ndim(f) == 0 else f.reshape(B * A, -1) for f in factors]
    return encoder_layer(H.reshape(B * A, C), weights, heads, epsilon, factors).reshape(B, A, C)


def interact_by_attribute(H, weights, heads, epsilon=0.0):
    """The cheap form: for each attribute a sequence of its own, of B tokens."""
    out = np.zeros_like(H)
    for a in range(H.shape[1]):
        out[:, a] = encoder_layer(H[:, a], weights, heads, epsilon)
    return out


# Scores.


def attribute_scores(p, W4, h):
    """Eq. (7): e [B, A]."""
    return np.array([[p[a] @ W4 @ h_i[a] for a in range(len(p))] for h_i in h])


def unit(row):
    return row / max(np.sqrt(sum(value * value for value in row)), 1e-30)


def logits(e, z, gamma):
    """Eq. (8): o [B, K]."""
    return np.array([[(gamma * unit(z_c)) @ (gamma * unit(e_i)) for z_c in z] for e_i in e])


# Losses.


def log_softmax(row, classes):
    top = max(row[c] for c in classes)
    total = top + np.log(sum(np.exp(row[c] - top) for c in classes))
    return {c: row[c] - total for c in classes}


def cross_entropy(o, labels, classes):
    """The first term of Eq. (9), and Eq. (10): the mean over rows; the softmax runs over `classes`."""
    return -sum(log_softmax(row, classes)[label] for row, label in zip(o, labels, strict=True)) / len(o)


def indicator(seen, for_unseen, for_seen):
    return np.where(seen, for_seen, for_unseen)


def printed_calibration(o, seen, for_unseen=1.0, for_seen=0.0):
    """The second term of Eq. (9) without its lambda: a sum of logs over the unseen classes, the mean over rows."""
    total = 0.0
    for row in o + indicator(seen, for_unseen, for_seen):
        shares = log_softmax(row, range(len(row)))
        total -= sum(shares[c] for c in np.flatnonzero(~seen))
    return total / len(o)


def pooled_calibration(o, seen, for_unseen=1.0, for_seen=-1.0):
    """The predecessor's: minus the log of the mean over rows of what all unseen classes have together."""
    together = []
    for row in o + indicator(seen, for_unseen, for_seen):
        together.append(softmax(row)[~seen].sum())
    return -np.log(np.mean(together))


def attribute_loss(entropy, calibration, lambda_sc):
    """Eq. (9)."""
    return entropy + lambda_sc * calibration


def total(attribute, global_, lambda_gc):
    """Eq. (11)."""
    return attribute + lambda_gc * global_


# Decision.


def first_of_the_largest(values, classes):
    best = classes[0]
    for c in classes:
        if values[c] > values[best]:
            best = c
    return best


def ensemble(o_i, g_i, seen, beta, margin=1.0, within_seen=True):
    """Algorithm 1 for one row: its label. Of equal classes a seen one, and then the first.

    As printed the second argmax runs over all classes; `within_seen` keeps it to those the first one chose from.
    """
    classes = [*np.flatnonzero(seen), *np.flatnonzero(~seen)]
    y1 = first_of_the_largest(o_i + indicator(seen, margin, 0.0), classes)
    if not seen[y1]:
        return y1
    both = beta * softmax(o_i) + (1 - beta) * softmax(g_i)
    return first_of_the_largest(both, list(np.flatnonzero(seen)) if within_seen else classes)
