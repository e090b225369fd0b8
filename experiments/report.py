"""The text that a run prints: a heading before it, and tables after it."""

from zslkeras import protocol
from zslkeras.evaluation.metrics import METRICS, summaries

LEGEND = """\
T: unseen images among unseen classes. U, S, H: unseen and seen images among all classes, and their harmonic mean,
at the gamma chosen on validation. U0, S0, H0: at gamma 0. AUSUC: area under the curve of S and U over all gammas."""

_WIDTH, _CELL = 34, 10  # least width of a name, and of a cell, in letters


def heading(model, benchmark):
    """What the choices are made on, and notes about the data; printed before the first step."""
    lines = [
        f"{model} on {benchmark.name}: chosen on {len(benchmark.train)} training rows of {benchmark.kind} "
        f"{_shape(benchmark.input_shape)}, {len(benchmark.seen_classes)} seen and {len(benchmark.unseen_classes)} "
        f"validation classes, embeddings of width {benchmark.class_embeddings.shape[1]}"
    ]
    return "\n".join([*lines, *(f"note: {note}" for note in benchmark.notes)])


def table(result, ablation=None):
    """One result as text, in percent; "-" for a metric without test rows."""
    seeds, selected, classes = result["seeds"], result["selected"], result["classes"]
    model = result["model"] + (f" ({ablation})" if ablation else "")
    yardsticks = {
        name: one
        for name, one in result["yardsticks"].items()
        if name != result["model"] or percents(one) != percents(selected)  # not the model itself
    }
    where = result["dataset"] + (f", {result['features']}" if result["features"] else "")
    rows = [("selected on validation" if result["selected_on_validation"] else "not selected", percents(selected))]
    if len(seeds) > 1:
        rows.append(("  std over seeds", [_percent(selected[m]["std"]) for m in METRICS]))
    for kind, label in (("rows", "  95 % over images"), ("classes", "  95 % over classes")):
        rows.append((label, [_span(selected[m][f"interval_{kind}"]) for m in METRICS]))
    rows.append(("best on test, as papers report", percents(result["best_on_test"])))
    for name, one in yardsticks.items():
        rows.append((f"{protocol.label(name)}, selected on validation", percents(one)))
    rows.append(("chance", [_percent(result["chance"][m]) if m in result["chance"] else "" for m in METRICS]))
    if paper := result["paper"]:
        rows.append(("the paper (its features, on test)", [f"{paper[m]:.1f}" if m in paper else "" for m in METRICS]))
    counts = f"{len(seeds)} seed{'s' if len(seeds) > 1 else ''}, {classes['seen']} seen and {classes['unseen']} unseen"
    lines = ["", f"{model} on {where}: {counts} classes, percent", grid("", METRICS, rows)]
    if reason := result["without_yardsticks"]:
        lines.append(f"not compared with {' and '.join(map(protocol.label, protocol.YARDSTICKS))}: {reason}")
    if _percent(selected["U"]["mean"]) == "-":
        lines.append("No unseen class has a test image, so T, U, H and AUSUC are unknown.")
    for name, one in yardsticks.items():
        other = protocol.label(name, result["model"])
        lines += ["", f"against {other}, paired by class", paired(one["versus"])]
        lines += [_in_words(model, other, m, one["versus"][m]) for m in "TH" if _known(one["versus"][m]["difference"])]
    if "pointing" in result:
        lines += ["", "peaks of attention on the object, percent of maps", pointing(result["pointing"])]
    return "\n".join(lines)


def pointing(table):
    """One line per attention and choice of its maps: trained, untrained, and cells drawn at random."""
    states = ("trained", "untrained")
    entries = [(f"  {name}, {which}", entry) for name, by in table.items() for which, entry in by.items()]
    return grid(
        "",
        (*states, "chance"),
        [
            (label, [_percent(v) for v in (*(entry[s]["mean"] for s in states), entry["chance"])])
            for label, entry in entries
        ],
    )


def paired(comparison):
    """One line per metric: the difference, its interval over classes, and the classes won and lost."""
    return "\n".join(_versus(metric, entry) for metric, entry in comparison.items())


def summary(results):
    """One line per result in {name: result}: the selected state, mean over seeds."""
    rows = [(name, percents(result["selected"])) for name, result in results.items()]
    return "\n".join(["", "all rows, percent", grid("", METRICS, rows)])


def means(title, rows):
    """One line per (name, list of results of `metrics.numbers`): the mean of each metric, in percent."""
    return grid(title, METRICS, [(name, percents(summaries(numbers))) for name, numbers in rows])


def grid(title, columns, rows):
    """The one table: a heading, then one line per (name, cells), with names to the left and cells to the right."""
    width = max(_WIDTH, *(len(name) + 1 for name in (title, *(name for name, _ in rows))))
    widths = [
        max(_CELL, *(len(line[place]) + 1 for line in [columns, *(cells for _, cells in rows)]))
        for place in range(len(columns))
    ]
    lines = [(title, columns), *rows]
    return "\n".join(
        (f"{name:<{width}}" + "".join(f"{cell:>{wide}}" for cell, wide in zip(cells, widths, strict=True))).rstrip()
        for name, cells in lines
    )


def percents(summaries, metrics=METRICS, std=False):
    """The mean of each metric in `summaries`, in percent, with or without its standard deviation."""
    cells = [_percent(summaries[metric]["mean"]) for metric in metrics]
    if not std:
        return cells
    return [f"{cell} +- {_percent(summaries[metric]['std'])}" for cell, metric in zip(cells, metrics, strict=True)]


def _versus(metric, entry):
    difference, low, high = (_percent(value, "+") for value in (entry["difference"], *entry["interval"]))
    won, lost = entry["classes_won"], entry["classes_lost"]
    return f"  {metric}  {difference:>6}  [{low:>6}, {high:>6}]  classes won {won}, lost {lost} of {entry['classes']}"


def _in_words(model, other, metric, entry):
    """How a model stands; it is ahead or behind only if the interval excludes 0."""
    difference, (low, high) = entry["difference"], entry["interval"]
    if low <= 0 <= high:
        span = f"{_percent(difference, '+')} [{_percent(low)}, {_percent(high)}]"
        return f"{model} is level with {other} in {metric} ({span})."
    near, far = sorted((abs(low), abs(high)))
    by = f"{_percent(abs(difference))} points [{_percent(near)}, {_percent(far)}]"
    return f"{model} is {'ahead of' if low > 0 else 'behind'} {other} in {metric} by {by}."


def _shape(shape):
    """(7, 7, 1280) as 7x7x1280, several of them joined by +."""
    return " + ".join(map(_shape, shape)) if isinstance(shape[0], tuple) else "x".join(map(str, shape))


def _percent(value, sign=""):
    return f"{100 * value:{sign}.1f}" if _known(value) else "-"


def _known(value):
    """False for a metric without test rows: None out of JSON, NaN before it is written."""
    return value is not None and value == value


def _span(interval):
    low, high = (_percent(value).replace("100.0", "100") for value in interval)  # so that any two fit a column
    return low if low == high == "-" else f"{low}-{high}"
