"""ESZSL as the paper writes it (Eq. 12), in float64."""

import numpy as np


def scaled(kind, rows, train):
    """`rows` under one of the scalings, fitted on `train`."""
    rows, train = rows.astype(np.float64), train.astype(np.float64)
    if kind.startswith("root_"):
        roots = (np.sign(part) * np.sqrt(np.abs(part)) for part in (rows, train))
        return scaled(kind.removeprefix("root_"), *roots)
    if kind == "none":
        return rows
    if kind == "l2":
        return _unit(rows)
    if kind == "centred_l2":
        return _unit(_unit(rows) - _unit(train).mean(axis=0))
    if kind == "standard":
        return (rows - train.mean(axis=0)) / train.std(axis=0)
    return (rows - train.min(axis=0)) / (train.max(axis=0) - train.min(axis=0))


def compatibility(features, labels, embeddings, seen, gamma, lambda_):
    """V = (X'X + gamma I)^-1 X' Y S (S'S + lambda I)^-1, [D, A]; Y is 1 at the row's class and -1 at the others."""
    Y = -np.ones((len(features), len(seen)))
    for row, label in enumerate(labels):
        for column, c in enumerate(seen):
            if label == c:
                Y[row, column] = 1
    S = np.array([embeddings[c] for c in seen], np.float64)
    left = np.linalg.inv(features.T @ features + gamma * np.eye(features.shape[1]))
    right = np.linalg.inv(S.T @ S + lambda_ * np.eye(S.shape[1]))
    return left @ features.T @ Y @ S @ right


def _unit(rows):
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)
