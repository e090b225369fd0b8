"""Draws the figures of a run. Each function draws one figure and writes it; none decides anything."""

import matplotlib

matplotlib.use("Agg")  # no screen needed

import matplotlib.pyplot as plt
import numpy as np
from matplotlib import colors

_COLOURS = ["#1f6f8b", "#d1662b", "#832db6"]  # of the model, and of what stands beside it
# Ten colours that colour-blind readers can tell apart: M. A. Petroff, Accessible Color Sequences (2021).
_TEN = ["#3f90da", "#ffa90e", "#bd1f01", "#94a4a2", "#832db6", "#a96b59", "#e76300", "#b9ac70", "#717581", "#92dadd"]
_SHARES = np.linspace(0, 1, 256)
_MARKERS = "osD^v"  # in turn with the colours, so that no class is marked by its colour alone
# Low values are transparent and dark, high ones opaque and bright, so that their order survives in a grey print.
_HEAT = colors.ListedColormap(np.column_stack([plt.cm.inferno(_SHARES)[:, :3], 0.8 * _SHARES]), "heat")
_LIGHT = np.array([0.299, 0.587, 0.114])  # of red, green and blue, as ITU-R BT.601 weighs them
_CELL, _PICTURE = 1.4, 1.5  # side of a map in inches; side of the image in maps


def seen_unseen_curve(path, curves):
    """S against U over all gammas.

    Args:
        path: of the PNG.
        curves: {label: (U [k], S [k], chosen (U, S), area)}; the first is the model's.
    """
    figure, axes = plt.subplots(figsize=(5.2, 4.6))
    for colour, (label, (unseen, seen, chosen, area)) in zip(_COLOURS, curves.items(), strict=False):
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
    """Metrics over the states of one training, one line per metric; the chosen state is marked.

    Args:
        path: of the PNG.
        rows: one dict per state.
        metrics: {label: key of the rows}.
        chosen: index of the chosen state.
    """
    figure, axes = plt.subplots(figsize=(6, 4))
    place = np.arange(1, len(rows) + 1)
    for label, key in metrics.items():
        axes.plot(place, [100 * row[key] for row in rows], label=label, linewidth=1.4)
    axes.axvline(chosen + 1, color="0.6", linestyle="--", linewidth=1)
    axes.annotate("chosen", (chosen + 1, 1), xycoords=("data", "axes fraction"), fontsize=8, color="0.4", va="bottom")
    axes.set(xlabel="epoch" if "epoch" in rows[0] else "setting", ylabel="%", ylim=(0, None))
    axes.legend(frameon=False)
    _write(figure, path)


def confusion(path, tables, names):
    """Confusion matrices over unseen classes side by side, rows summing to one.

    Args:
        path: of the PNG.
        tables: {label: counts [C, C]}, true class by predicted class.
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
        one.set_xlabel("predicted")
    axes[0][0].set_ylabel("true")
    figure.colorbar(image, ax=axes[0].tolist(), label="% of the class's images", shrink=0.8)
    _write(figure, path, tight=False)


def attention(path, picture, heading, rows):
    """Where a model looks: an image, and maps laid over it, each scaled by its own peak.

    Args:
        path: of the PNG.
        picture: uint8 [h, w, 3], or None to draw the maps alone.
        heading: lines of text over the image.
        rows: {label: [(title, map [H, W])]}; a row may have fewer maps than another.
    """
    lines = max(title.count("\n") + 1 for maps in rows.values() for title, _ in maps)
    # Columns in units of a map's side: the image, room for the labels of rows, and the maps.
    widths = [*([_PICTURE] if picture is not None else []), 0.22, *[1] * max(map(len, rows.values()))]
    gap = (0.14 * lines + 0.08) / _CELL
    figure = plt.figure(figsize=(_CELL * (sum(widths) + 0.07 * len(widths)), _CELL * len(rows) * (1 + gap)))
    edges = {"left": 0, "right": 1, "bottom": 0, "top": 1}
    grid = figure.add_gridspec(len(rows), len(widths), width_ratios=widths, wspace=0.08, hspace=gap, **edges)
    first = len(widths) - max(map(len, rows.values()))
    for place, (label, maps) in enumerate(rows.items()):
        for column, (title, heat) in enumerate(maps):
            axes = _bare(figure.add_subplot(grid[place, first + column]))
            _lay_over(axes, picture, heat)
            axes.set_title(title, fontsize=8, linespacing=1.15, pad=4)
            if not column:
                axes.set_ylabel(label, fontsize=9)
    if picture is not None:
        axes = _bare(figure.add_subplot(grid[:2, 0]))
        axes.imshow(picture)
        axes.set_title(heading, fontsize=9.5, linespacing=1.3)
    else:
        figure.suptitle(heading, fontsize=9.5, y=1 + gap / (len(rows) * (1 + gap)), va="bottom")
    bar = figure.colorbar(
        plt.cm.ScalarMappable(cmap="inferno"), ax=figure.axes, fraction=0.012, pad=0.015, ticks=[0, 1]
    )
    bar.set_label("attention, share of the peak", fontsize=8)
    bar.ax.tick_params(labelsize=8, length=2)
    bar.outline.set_visible(False)
    _write(figure, path, tight=False)


def views(path, pictures, drawn):
    """A sheet of views: each row shows an image, and then its draws side by side.

    Args:
        path: of the PNG.
        pictures: [K, h, w, 3], 0 to 255.
        drawn: for each image, for each draw, its views [H, W, 3], 0 to 255.
    """
    draws, each = len(drawn[0]), len(drawn[0][0])
    widths = [1, *([0.15] + each * [1]) * draws]  # in units of a view's side; a gap before each draw
    edges = {"left": 0, "right": 1, "bottom": 0, "top": 1}
    figure = plt.figure(figsize=(_CELL * sum(widths), _CELL * len(pictures)))
    grid = figure.add_gridspec(len(pictures), len(widths), width_ratios=widths, wspace=0.04, hspace=0.04, **edges)
    for row, (picture, of_picture) in enumerate(zip(pictures, drawn, strict=True)):
        columns = {0: picture}
        for number, draw in enumerate(of_picture):
            columns |= dict(enumerate(draw, 2 + number * (each + 1)))
        for column, pixels in columns.items():
            axes = _bare(figure.add_subplot(grid[row, column]))
            axes.imshow(np.clip(pixels, 0, 255).astype(np.uint8))
            if not row:
                axes.set_title("image" if not column else f"view {(column - 2) % (each + 1) + 1}", fontsize=9)
    _write(figure, path, tight=False)


def embeddings(path, points, classes):
    """Points in the plane, coloured by class: groups of classes from top to bottom, spaces from left to right.

    Args:
        path: of the PNG.
        points: {group: {space: [n, 2]}}.
        classes: {group: n class names}, at most ten different ones.
    """
    spaces = list(next(iter(points.values())))
    figure, table = plt.subplots(
        len(points), len(spaces), figsize=(2.3 * len(spaces) + 1.8, 2.4 * len(points) + 0.3), squeeze=False
    )
    for axes, space in zip(table[0], spaces, strict=True):
        axes.set_title(space, fontsize=10)
    for line, (group, by_space) in zip(table, points.items(), strict=True):
        of_points = np.array(classes[group])
        names = sorted(set(classes[group]))
        for axes, xy in zip(line, by_space.values(), strict=True):
            for number, name in enumerate(names):
                own = of_points == name
                marker = _MARKERS[number % len(_MARKERS)]
                axes.scatter(*xy[own].T, s=13, color=_TEN[number], marker=marker, linewidths=0, alpha=0.9, label=name)
            _bare(axes)
            axes.margins(0.06)
        line[0].set_ylabel(group, fontsize=10)
        line[-1].legend(
            loc="center left",
            bbox_to_anchor=(1.02, 0.5),
            fontsize=7.5,
            frameon=False,
            handletextpad=0.1,
            markerscale=1.4,
        )
    figure.subplots_adjust(wspace=0.06, hspace=0.06)
    _write(figure, path, tight=False)


def channel_weights(path, panels, names):
    """How much of each channel an attribute lets through, one heat map per image.

    Args:
        path: of the PNG.
        panels: {title: [n, channels]}, from 0 to 1.
        names: of the n attributes.
    """
    figure, line = plt.subplots(
        1, len(panels), figsize=(2.6 * len(panels) + 1.8, 0.24 * len(names) + 0.9), squeeze=False, sharey=True
    )
    for axes, (title, weights) in zip(line[0], panels.items(), strict=True):
        image = axes.imshow(weights, cmap="viridis", vmin=0, vmax=1, aspect="auto", interpolation="nearest")
        axes.set_title(title, fontsize=9)
        axes.set_xticks([])
        axes.set_xlabel(f"{weights.shape[1]} of the channels", fontsize=8)
    line[0][0].set_yticks(range(len(names)), names, fontsize=8)
    bar = figure.colorbar(image, ax=list(line[0]), fraction=0.02, pad=0.02)
    bar.set_label("weight", fontsize=8)
    bar.ax.tick_params(labelsize=8, length=2)
    _write(figure, path, tight=False)


def sensitivity(path, symbol, values, curves):
    """Metrics over the values of one hyperparameter, evenly spaced as in the papers' figures.

    Args:
        path: of the PNG.
        symbol: its name.
        values: n texts.
        curves: {metric: (means [n], standard deviations [n])}, from 0 to 1; NaN leaves a gap.
    """
    figure, axes = plt.subplots(figsize=(5.2, 3.8))
    place = np.arange(len(values))
    for number, (label, (means, stds)) in enumerate(curves.items()):
        means, stds, colour = 100 * np.asarray(means, float), 100 * np.asarray(stds, float), _TEN[number]
        axes.plot(place, means, color=colour, marker=_MARKERS[number % len(_MARKERS)], markersize=5, label=label)
        axes.fill_between(place, means - stds, means + stds, color=colour, alpha=0.15, linewidth=0)
    axes.set_xticks(place, values)
    axes.set(xlabel=symbol, ylabel="%, on validation classes")
    axes.grid(axis="y", color="0.92")
    axes.legend(frameon=False, ncols=len(curves), loc="lower center", bbox_to_anchor=(0.5, 1))
    _write(figure, path)


def best_so_far(path, metric, scores):
    """Each trial's score, and the best up to it.

    Args:
        path: of the PNG.
        metric: what the scores are.
        scores: one per trial in order, from 0 to 1; NaN where the trial failed.
    """
    figure, axes = plt.subplots(figsize=(5.6, 3.6))
    place, scores = np.arange(1, len(scores) + 1), 100 * np.asarray(scores, float)
    failed = np.isnan(scores)
    best = np.maximum.accumulate(np.where(failed, -np.inf, scores))
    axes.step(place, np.where(np.isinf(best), np.nan, best), where="post", color=_COLOURS[0], label="best so far")
    axes.plot(place[~failed], scores[~failed], "o", color=_COLOURS[1], markersize=5, label="trial")
    if failed.any():
        on_the_axis = axes.get_xaxis_transform()
        axes.plot(
            place[failed], 0 * place[failed], "x", color="0.3", transform=on_the_axis, clip_on=False, label="failed"
        )
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.set(xlabel="trial", ylabel=f"{metric}, %, on validation classes")
    axes.legend(frameon=False)
    _write(figure, path)


def parallel_coordinates(path, axes_of, metric, scores):
    """One line per trial through its hyperparameters to its score, which sets its colour; better trials lie on top.

    Args:
        path: of the PNG.
        axes_of: {symbol: (n heights in 0..1, [(height, text)] of its ticks)}.
        metric: what the scores are.
        scores: n of them, from 0 to 1.
    """
    scores = 100 * np.asarray(scores, float)
    low, high = scores.min(), scores.max()
    spread = max(high - low, 1e-6)
    ends = [(height, f"{low + height * spread:.1f}") for height in (0, 0.5, 1)]
    columns = {**axes_of, f"{metric}, %": ((scores - low) / spread, ends)}
    figure, axes = plt.subplots(figsize=(1.5 * len(columns) + 0.5, 4))
    for trial in np.argsort(scores):
        heights = [heights[trial] for heights, _ in columns.values()]
        share = (scores[trial] - low) / spread
        axes.plot(range(len(columns)), heights, color=plt.cm.viridis_r(share), linewidth=1 + share, alpha=0.85)
    for place, (_, ticks) in enumerate(columns.values()):
        axes.axvline(place, color="0.3", linewidth=0.8, zorder=3)
        for height, text in ticks:
            ground = {"facecolor": "white", "alpha": 0.7, "linewidth": 0, "pad": 0.5}
            where = {"xytext": (3, 2), "textcoords": "offset points", "zorder": 4}
            axes.annotate(text, (place, height), **where, fontsize=8, bbox=ground)
    axes.set_xticks(range(len(columns)), columns)
    axes.set_yticks([])
    axes.set(xlim=(-0.1, len(columns) - 0.6), ylim=(-0.03, 1.06))
    for spine in axes.spines.values():
        spine.set_visible(False)
    _write(figure, path)


def _lay_over(axes, picture, heat):
    """Draws a map over the grey image, enlarged bilinearly to its size; where the map is low, the image shows."""
    heat = np.asarray(heat, np.float64) / max(np.max(heat), np.finfo(np.float64).tiny)
    drawn = {"vmin": 0, "vmax": 1, "interpolation": "bilinear"}
    if picture is None:
        axes.imshow(heat, cmap="inferno", **drawn)
        return
    corners = (0, picture.shape[1], picture.shape[0], 0)  # of both, so that the first cell lies on the first pixels
    axes.imshow(picture @ _LIGHT, cmap="gray", vmin=0, vmax=255, extent=corners)
    axes.imshow(heat, cmap=_HEAT, extent=corners, **drawn)


def _bare(axes):
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set(color="0.7", linewidth=0.6)
    return axes


def _write(figure, path, tight=True):
    if tight:
        figure.tight_layout()
    figure.savefig(path, dpi=130, bbox_inches="tight")
    plt.close(figure)
