"""What the screen shows: a heading before, a table after."""

from zslkeras.evaluation import METRICS

_WIDTH = 34


def heading(model, benchmark):
    """What will be trained, and what the reader should know of the data, before the first step."""
    lines = [
        f"{model} on {benchmark.name}: {len(benchmark.train)} training rows of {benchmark.kind} "
        f"{'x'.join(map(str, benchmark.input_shape))}, {len(benchmark.seen_classes)} seen and "
        f"{len(benchmark.unseen_classes)} validation classes, embeddings of width {benchmark.class_embeddings.shape[1]}"
    ]
    return "\n".join([*lines, *(f"note: {note}" for note in benchmark.notes)])


def table(result, title=None):
    """One result as text, in percent."""
    seeds, base = result["seeds"], result["baseline"]
    chosen = "selected on validation" if result["selected_on_validation"] else "not selected (--select fixed)"
    where = f"{result['dataset']}" + (f", {result['features']}" if result["features"] else "")
    lines = [
        "",
        f"{title or result['model']} on {where}: {len(seeds)} seed{'s' if len(seeds) > 1 else ''}, percent",
        _row("", METRICS),
        _row(chosen, [_mean(result["selected"], m) for m in METRICS]),
    ]
    if len(seeds) > 1:
        lines.append(_row("  std over seeds", [_percent(result["selected"][m]["std"]) for m in METRICS]))
    for kind, label in (("rows", "  95 % over pictures"), ("classes", "  95 % over classes")):
        lines.append(_row(label, [_span(result["selected"][m][f"interval_{kind}"]) for m in METRICS]))
    lines.append(_row("best epoch on test, as papers do", [_mean(result["best_on_test"], m) for m in METRICS]))
    if "reason" in base:
        lines.append(f"no ESZSL baseline: {base['reason']}")
    else:
        lines.append(_row("ESZSL, selected on validation", [_mean(base, m) for m in METRICS]))
    paper = result["paper"]
    if paper:
        cells = [f"{paper[m]:.1f}" if m in paper else "" for m in METRICS]
        lines.append(_row("the paper (its features, on test)", cells))
    versus = result["versus_baseline"]
    if versus and result["model"] != "eszsl":
        lines += ["", "against ESZSL, paired by class"]
        for metric, entry in versus.items():
            low, high = entry["interval"]
            lines.append(
                f"  {metric}  {100 * entry['difference']:+5.1f}  [{100 * low:+.1f}, {100 * high:+.1f}]  "
                f"classes won {entry['classes_won']}, lost {entry['classes_lost']} of {entry['classes']}"
            )
    return "\n".join(lines)


def _row(label, cells):
    return f"{label:<{_WIDTH}}" + "".join(f"{cell:>10}" for cell in cells)


def _mean(columns, metric):
    return _percent(columns[metric]["mean"])


def _percent(value):
    return "-" if value is None or value != value else f"{100 * value:.1f}"


def _span(interval):
    return "-".join(_percent(value) for value in interval)
