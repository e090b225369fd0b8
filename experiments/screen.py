"""The text that a run prints: a heading before it, and tables after it."""

from zslkeras.evaluation.metrics import METRICS, summaries
from zslkeras.evaluation.tables import grid, in_words, known, label, paired, percent, percents, span
from zslkeras.names import YARDSTICKS

LEGEND = """\
T: unseen images among unseen classes. U, S, H: unseen and seen images among all classes, and their harmonic mean,
at the gamma chosen on validation. U0, S0, H0: at gamma 0. AUSUC: area under the curve of S and U over all gammas."""


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
        rows.append(("  std over seeds", [percent(selected[m]["std"]) for m in METRICS]))
    for kind, title in (("rows", "  95 % over images"), ("classes", "  95 % over classes")):
        rows.append((title, [span(selected[m][f"interval_{kind}"]) for m in METRICS]))
    rows.append(("best on test, as papers report", percents(result["best_on_test"])))
    if start := result["start"]:
        rows.append(("its start, the closed form", percents(start)))
    for name, one in yardsticks.items():
        rows.append((f"{label(name)}, selected on validation", percents(one)))
    rows.append(("chance", [percent(result["chance"][m]) if m in result["chance"] else "" for m in METRICS]))
    if paper := result["paper"]:
        rows.append(("the paper (its features, on test)", [f"{paper[m]:.1f}" if m in paper else "" for m in METRICS]))
    counts = f"{len(seeds)} seed{'s' if len(seeds) > 1 else ''}, {classes['seen']} seen and {classes['unseen']} unseen"
    lines = ["", f"{model} on {where}: {counts} classes, percent", grid("", METRICS, rows)]
    if reason := result["without_yardsticks"]:
        lines.append(f"not compared with {' and '.join(map(label, YARDSTICKS))}: {reason}")
    if percent(selected["U"]["mean"]) == "-":
        lines.append("No unseen class has a test image, so T, U, H and AUSUC are unknown.")
    if start and start["kept"] < len(seeds):
        lines += ["", *_against(model, "its own start", start["versus"])]
    if sentence := kept(result):
        lines += ["", sentence]
    for name, one in yardsticks.items():
        lines += ["", *_against(model, label(name, result["model"]), one["versus"])]
    if "pointing" in result:
        lines += ["", "peaks of attention on the object, percent of maps", pointing(result["pointing"])]
    return "\n".join(lines)


def kept(result):
    """The sentence about seeds that kept their closed form; None where none did."""
    start, seeds = result["start"], len(result["seeds"])
    if not (start and start["kept"]):
        return None
    return f"Closed form kept: no epoch was better on validation, in {start['kept']} of {seeds} seeds."


def verdicts(model, other, versus):
    """How a model stands to another one, in words: a sentence for T and one for H, where these are known."""
    return [in_words(model, other, m, versus[m]) for m in "TH" if known(versus[m]["difference"])]


def _against(model, other, versus):
    """How a model compares with another one: metric by metric, and in words."""
    return [f"against {other}, paired by class", paired(versus), *verdicts(model, other, versus)]


def pointing(table):
    """One line per attention and choice of its maps: trained, untrained, and cells drawn at random."""
    states = ("trained", "untrained")
    entries = [(f"  {name}, {which}", entry) for name, by in table.items() for which, entry in by.items()]
    return grid(
        "",
        (*states, "chance"),
        [
            (title, [percent(v) for v in (*(entry[s]["mean"] for s in states), entry["chance"])])
            for title, entry in entries
        ],
    )


def summary(results):
    """One line per result in {name: result}: the selected state, mean over seeds."""
    rows = [(name, percents(result["selected"])) for name, result in results.items()]
    return "\n".join(["", "all rows, percent", grid("", METRICS, rows)])


def means(title, rows):
    """One line per (name, list of results of `metrics.numbers`): the mean of each metric, in percent."""
    return grid(title, METRICS, [(name, percents(summaries(numbers))) for name, numbers in rows])


def _shape(shape):
    """(7, 7, 1280) as 7x7x1280, several of them joined by +."""
    return " + ".join(map(_shape, shape)) if isinstance(shape[0], tuple) else "x".join(map(str, shape))
