"""What the screen shows: a heading before, tables after."""

import statistics

from zslkeras.evaluation import METRICS

LEGEND = """\
T: unseen pictures among unseen classes. U, S, H: unseen and seen pictures among all classes, and their harmonic mean,
at the gamma chosen on validation. U0, S0, H0: at gamma 0. AUSUC: area under the curve of S and U over all gammas."""

_WIDTH = 34


def heading(model, benchmark):
    """What will be chosen on, and what the reader should know of the data, before the first step."""
    lines = [
        f"{model} on {benchmark.name}: chosen on {len(benchmark.train)} training rows of {benchmark.kind} "
        f"{_shape(benchmark.input_shape)}, {len(benchmark.seen_classes)} seen and {len(benchmark.unseen_classes)} "
        f"validation classes, embeddings of width {benchmark.class_embeddings.shape[1]}"
    ]
    return "\n".join([*lines, *(f"note: {note}" for note in benchmark.notes)])


def table(result, ablation=None):
    """One result as text, in percent; "-" for what no test row speaks for."""
    seeds, selected, base = result["seeds"], result["selected"], result["baseline"]
    model = result["model"] + (f" ({ablation})" if ablation else "")
    itself = result["model"] == "eszsl" and "reason" not in base and _means("", base) == _means("", selected)
    where = result["dataset"] + (f", {result['features']}" if result["features"] else "")
    lines = [
        "",
        f"{model} on {where}: {len(seeds)} seed{'s' if len(seeds) > 1 else ''}, percent",
        _row("", METRICS),
        _means("selected on validation" if result["selected_on_validation"] else "not selected", selected),
    ]
    if len(seeds) > 1:
        lines.append(_row("  std over seeds", [_percent(selected[m]["std"]) for m in METRICS]))
    for kind, label in (("rows", "  95 % over pictures"), ("classes", "  95 % over classes")):
        lines.append(_row(label, [_span(selected[m][f"interval_{kind}"]) for m in METRICS]))
    lines.append(_means("best on test, as papers report", result["best_on_test"]))
    if "reason" in base:
        lines.append(f"no ESZSL baseline: {base['reason']}")
    elif not itself:
        lines.append(_means("ESZSL, selected on validation", base))
    if paper := result["paper"]:
        cells = [f"{paper[m]:.1f}" if m in paper else "" for m in METRICS]
        lines.append(_row("the paper (its features, on test)", cells))
    if _percent(selected["U"]["mean"]) == "-":
        lines.append("No unseen class has a test picture: nothing can be said of T, U, H and AUSUC.")
    if result["versus_baseline"] and not itself:
        lines += ["", "against ESZSL, paired by class", paired(result["versus_baseline"])]
    if "pointing" in result:
        lines += ["", "peaks of attention on the object, percent of maps", pointing(result["pointing"])]
    return "\n".join(lines)


def pointing(table):
    """A line for each attention and choice of its maps: trained, untrained, and cells drawn at random."""
    states = ("trained", "untrained")
    entries = [(f"{name}, {which}", entry) for name, by in table.items() for which, entry in by.items()]
    width = max(_WIDTH, *(len(label) + 4 for label, _ in entries))
    rows = [
        _row(f"  {label}", [_percent(value) for value in (*(entry[s]["mean"] for s in states), entry["chance"])], width)
        for label, entry in entries
    ]
    return "\n".join([_row("", (*states, "chance"), width), *rows])


def paired(comparison):
    """A line a metric: the difference, its interval over classes, and the classes won and lost."""
    return "\n".join(_versus(metric, entry) for metric, entry in comparison.items())


def summary(results):
    """A line for each of several results, {name: result}: what was selected, mean over seeds."""
    width = max(_WIDTH, *(len(name) + 2 for name in results))
    rows = [_means(name, result["selected"], width) for name, result in results.items()]
    return "\n".join(["", "all rows, percent", _row("", METRICS, width), *rows])


def means(title, rows):
    """A line for each (name, a list of what `evaluation.numbers` returned): the mean of each metric, percent."""
    width = max(28, *(len(name) + 2 for name, _ in rows))
    lines = [f"{title:<{width}}" + "".join(f"{metric:>8}" for metric in METRICS)]
    for name, numbers in rows:
        cells = (statistics.fmean(one[metric] for one in numbers) for metric in METRICS)
        lines.append(f"{name:<{width}}" + "".join(f"{100 * value:>8.1f}" for value in cells))
    return "\n".join(lines)


def _versus(metric, entry):
    difference, low, high = (_percent(value, "+") for value in (entry["difference"], *entry["interval"]))
    won, lost = entry["classes_won"], entry["classes_lost"]
    return f"  {metric}  {difference:>6}  [{low:>6}, {high:>6}]  classes won {won}, lost {lost} of {entry['classes']}"


def _shape(shape):
    """(7, 7, 1280) as 7x7x1280, several of them joined by +."""
    return " + ".join(map(_shape, shape)) if isinstance(shape[0], tuple) else "x".join(map(str, shape))


def _row(label, cells, width=_WIDTH):
    return (f"{label:<{width}}" + "".join(f"{cell:>10}" for cell in cells)).rstrip()


def _means(label, columns, width=_WIDTH):
    return _row(label, [_percent(columns[metric]["mean"]) for metric in METRICS], width)


def _percent(value, sign=""):
    return "-" if value is None or value != value else f"{100 * value:{sign}.1f}"


def _span(interval):
    low, high = (_percent(value).replace("100.0", "100") for value in interval)  # so that any two fit a column
    return low if low == high == "-" else f"{low}-{high}"
