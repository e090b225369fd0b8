"""Numbers as text: percent, one kind of table, and how one model stands to another in words."""

from zslkeras.evaluation.metrics import METRICS

_WIDTH, _CELL = 34, 10  # least width of a name, and of a cell, in letters


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
    cells = [percent(summaries[metric]["mean"]) for metric in metrics]
    if not std:
        return cells
    return [f"{cell} +- {percent(summaries[metric]['std'])}" for cell, metric in zip(cells, metrics, strict=True)]


def percent(value, sign=""):
    """A fraction in percent; "-" for a metric without test rows."""
    return f"{100 * value:{sign}.1f}" if known(value) else "-"


def span(interval):
    """An interval in percent."""
    low, high = (percent(value).replace("100.0", "100") for value in interval)  # so that any two fit a column
    return low if low == high == "-" else f"{low}-{high}"


def known(value):
    """False for a metric without test rows: None out of JSON, NaN before it is written."""
    return value is not None and value == value


def paired(comparison):
    """One line per metric of `uncertainty.versus`: the difference, its interval over classes, and the classes won and
    lost."""
    return "\n".join(_versus(metric, entry) for metric, entry in comparison.items())


def in_words(model, other, metric, entry):
    """How a model stands; it is ahead or behind only if the interval excludes 0."""
    difference, (low, high) = entry["difference"], entry["interval"]
    if low <= 0 <= high:
        span = f"{percent(difference, '+')} [{percent(low)}, {percent(high)}]"
        return f"{model} is level with {other} in {metric} ({span})."
    near, far = sorted((abs(low), abs(high)))
    by = f"{percent(abs(difference))} points [{percent(near)}, {percent(far)}]"
    return f"{model} is {'ahead of' if low > 0 else 'behind'} {other} in {metric} by {by}."


def label(yardstick, model=None):
    """The name of a yardstick in tables and figures, told apart from other settings of the same `model`."""
    name = {"eszsl": "ESZSL"}.get(yardstick, yardstick)
    return f"default {name}" if yardstick == model else name


def duration(seconds):
    """Seconds as a person says them."""
    if seconds < 90:
        return f"{round(seconds)} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} hours"


def expected(seeds, tune, final):
    """How long a run takes, of the seconds that each stage of a seed takes at most."""
    whole, each = duration(seeds * (tune + final)), duration(tune + final)
    return f"at most about {whole}" + (f": {seeds} seeds of {each} each" if seeds > 1 else "")


def _versus(metric, entry):
    difference, low, high = (percent(value, "+") for value in (entry["difference"], *entry["interval"]))
    won, lost = entry["classes_won"], entry["classes_lost"]
    return f"  {metric}  {difference:>6}  [{low:>6}, {high:>6}]  classes won {won}, lost {lost} of {entry['classes']}"
