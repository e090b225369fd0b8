"""Pictures of a run. Each function draws one and writes it; none decides anything."""

import matplotlib

matplotlib.use("Agg")  # no screen needed

import matplotlib.pyplot as plt
import numpy as np

_COLOURS = {"model": "#1f6f8b", "baseline": "#d1662b"}


def seen_unseen_curve(path, curves):
    """S against U over all gammas.

    Args:
        path: of the PNG.
        curves: {label: (U [k], S [k], chosen (U, S), area)}; the first is the model's.
    """
    figure, axes = plt.subplots(figsize=(5.2, 4.6))
    for colour, (label, (unseen, seen, chosen, area)) in zip(_COLOURS.values(), curves.items(), strict=False):
        axes.plot(100 * unseen, 100 * seen, color=colour, label=f"{label}, area {area:.3f}")
        axes.plot(100 * chosen[0], 100 * chosen[1], "o", color=colour, markersize=8, markeredgecolor="white")
    levels = np.linspace(0.1, 0.9, 9)
    grid = np.linspace(1, 100, 200)
    U, S = np.meshgrid(grid, grid)
    lines = axes.contour(U, S, 2 * U * S / (U + S), levels=100 * levels, colors="0.85", linewidths=0.8)
    axes.clabel(lines, fmt="H %.0f", fontsize=7)
    axes.set(xlabel="U, accuracy on unseen classes (%)", ylabel="S, accuracy on seen classes (%)")
    axes.set(xlim=(0, 100), ylim=(0, 100), title="all gammas; dots: the gamma chosen on validation")
    axes.legend(loc="upper right", frameon=False)
    _write(figure, path)


def history(path, rows, metrics, chosen):
    """Numbers over the states of one training, one line a metric; the chosen state is marked.

    Args:
        path: of the PNG.
        rows: a dict a state.
        metrics: {label: key of the rows}.
        chosen: index of the state taken.
    """
    figure, axes = plt.subplots(figsize=(6, 4))
    place = np.arange(1, len(rows) + 1)
    for label, key in metrics.items():
        axes.plot(place, [100 * row[key] for row in rows], label=label, linewidth=1.4)
    axes.axvline(chosen + 1, color="0.6", linestyle="--", linewidth=1)
    axes.annotate("taken", (chosen + 1, 1), xycoords=("data", "axes fraction"), fontsize=8, color="0.4", va="bottom")
    axes.set(xlabel="epoch" if "epoch" in rows[0] else "setting", ylabel="%", ylim=(0, None))
    axes.legend(frameon=False)
    _write(figure, path)


def confusion(path, tables, names):
    """Confusion matrices over unseen classes side by side, rows summing to one.

    Args:
        path: of the PNG.
        tables: {label: counts [C, C]}, true class by given class.
        names: C class names.
    """
    size = max(3.2, 0.28 * len(names))
    figure, axes = plt.subplots(1, len(tables), figsize=(size * len(tables) + 2, size + 1), squeeze=False, sharey=True)
    for one, (label, counts) in zip(axes[0], tables.items(), strict=True):
        shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
        image = one.imshow(100 * shares, cmap="magma_r", vmin=0, vmax=100)
        one.set_title(f"{label}: T {100 * np.mean(np.diag(shares)[counts.sum(axis=1) > 0]):.1f} %")
        one.set_xticks(range(len(names)), names, rotation=90, fontsize=7)
        one.set_yticks(range(len(names)), names, fontsize=7)
        one.set_xlabel("given")
    axes[0][0].set_ylabel("true")
    figure.colorbar(image, ax=axes[0].tolist(), label="% of the class's pictures", shrink=0.8)
    _write(figure, path, tight=False)


def _write(figure, path, tight=True):
    if tight:
        figure.tight_layout()
    figure.savefig(path, dpi=130, bbox_inches="tight")
    plt.close(figure)
