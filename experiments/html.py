"""A report of finished runs as one HTML file: numbers, differences, pictures, settings. It opens without a network.

All is read from the folders of the runs: nothing is trained, and no test class is read again.
"""

import base64
import html
import pathlib

from experiments import screen
from zslkeras import atomic
from zslkeras.errors import InputError
from zslkeras.evaluation.metrics import METRICS
from zslkeras.evaluation.tables import known, label, percent, percents, span
from zslkeras.structure import Each, OrNull

_COMPARED = "TUSH"
_ATTENTION = 8  # images at the most
_MOST = 2_700_000  # bytes of the images of a run, written as text: the rest of a report is small
_FIGURES = {
    "curve.png": "Accuracy on seen and unseen classes over all gammas. The dot is the gamma chosen on validation.",
    "history.png": "The training curve of stage tune, on validation classes. The line is the chosen state.",
    "confusion.png": "Confusion of the unseen classes among themselves: no seen class takes part.",
    "channels.png": "How much of some channels some attributes let through.",
    "tsne.png": "t-SNE of what the model makes of test images.",
    "views.png": "What training sees of some images.",
}
_NUMBERS = {metric: {"mean": OrNull(float)} for metric in METRICS}
_KIND = {
    "model": str,
    "dataset": str,
    "seeds": [int],
    "selected_on_validation": bool,
    "selected": {
        metric: {"mean": OrNull(float), "std": OrNull(float), "interval_classes": [OrNull(float)]} for metric in METRICS
    },
    "best_on_test": OrNull(_NUMBERS),
    "yardsticks": Each({**_NUMBERS, "versus": dict}),
    "start": OrNull({**_NUMBERS, "versus": dict, "kept": int}),
    "classes": {"seen": int, "unseen": int},
    "chance": {"T": OrNull(float)},
    "config": dict,
    "versions": dict,
    "per_class?": Each(Each(float)),
}
_STYLE = """
:root { color-scheme: light dark; --ink: #1c1e21; --soft: #61666d; --line: #dcdad5; --paper: #fbfaf8;
  --model: #1f6f8b; --behind: #b3261e; }
@media (prefers-color-scheme: dark) { :root { --ink: #e8e6e3; --soft: #a0a5ac; --line: #363a40; --paper: #15171a;
  --model: #7fc4dd; --behind: #f2857d; } img { background: #fff; } }
body { margin: 0 auto; max-width: 64rem; padding: 1rem; background: var(--paper); color: var(--ink);
  font: 16px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.5rem; } h2 { margin-top: 2.5rem; border-top: 1px solid var(--line); padding-top: 1rem; }
h3 { font-size: 1.05rem; } .soft, figcaption, caption { color: var(--soft); font-size: 0.9rem; text-align: left; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; margin: 0.5rem 0; }
th, td { padding: 0.2rem 0.45rem; text-align: right; border-bottom: 1px solid var(--line); white-space: nowrap; }
th:first-child, td:first-child { text-align: left; }
.ours td { font-weight: 600; }
figure { margin: 1rem 0; } img { max-width: 100%; height: auto; }
.bars { display: grid; grid-template-columns: max-content 1fr max-content; gap: 0.1rem 0.6rem; font-size: 0.85rem; }
.bars span { align-self: center; } .bar { background: var(--model); height: 0.7rem; border-radius: 2px; }
svg text { fill: var(--ink); font-size: 12px; } svg line { stroke: var(--soft); }
svg .ahead { stroke: var(--model); fill: var(--model); } svg .behind { stroke: var(--behind); fill: var(--behind); }
details { margin: 0.5rem 0; } summary { cursor: pointer; } code { overflow-wrap: anywhere; }
"""


def write(folders, out=None):
    """Writes the report of some runs; returns a sentence that says where.

    Args:
        folders: of the runs, in order.
        out: the file; report.html in the first folder if None.
    """
    runs = {str(folder): _read(pathlib.Path(folder)) for folder in folders}
    path = pathlib.Path(out) if out else pathlib.Path(folders[0]) / "report.html"
    if not path.parent.is_dir():
        raise InputError(f"out: no folder {path.parent}; wanted one for {path.name}")
    atomic.write_text(path, _page(runs))
    return f"written: {path}, {path.stat().st_size / 1e6:.1f} MB"


def _read(folder):
    path = folder / "result.json"
    if not path.is_file():
        rows = sorted(one.parent.name for one in folder.glob("*/result.json"))
        wanted = f"one of its rows, such as {folder / rows[0]}" if rows else "the folder of a finished run"
        raise InputError(f"html: no result in {folder}; wanted {wanted}")
    return atomic.read_json(path, _KIND)


def _page(runs):
    title = " and ".join(dict.fromkeys(f"{one['model']} on {one['dataset']}" for one in runs.values()))
    parts = [_overview(runs)] if len(runs) > 1 else []
    parts += [_run(pathlib.Path(folder), result, len(runs)) for folder, result in runs.items()]
    return (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n<title>{_text(title)}</title>\n'
        f"<style>{_STYLE}</style>\n</head>\n<body>\n<h1>{_text(title)}</h1>\n"
        "<p class=soft>T: unseen images among unseen classes. U, S, H: unseen and seen images among all classes, and "
        "their harmonic mean, at the gamma chosen on validation. U0, S0, H0: at gamma 0. AUSUC: area under the curve "
        "of S and U over all gammas. Percent; mean over classes.</p>\n" + "\n".join(parts) + "\n</body>\n</html>\n"
    )


def _overview(runs):
    rows = [(f"{one['model']}: {folder}", percents(one["selected"]), False) for folder, one in runs.items()]
    return _table("All runs, selected on validation.", rows)


def _run(folder, result, count):
    model, several = result["model"], len(result["seeds"]) > 1
    yardsticks = {name: one for name, one in result["yardsticks"].items() if name != model}
    seeds = f"{len(result['seeds'])} seed{'s' * several}"
    classes = f"{result['classes']['seen']} seen and {result['classes']['unseen']} unseen classes"
    heading = f"<h2>{_text(model)} on {_text(result['dataset'])}: {_text(folder)}</h2>\n" if count > 1 else ""
    chosen = "State and gamma were chosen on validation classes." if result["selected_on_validation"] else ""
    parts = [
        f"{heading}<p>{_text(f'{seeds}, {classes}. {chosen}')}</p>",
        *(f"<p>{_text(sentence)}</p>" for sentence in _verdicts(result, yardsticks)),
        _numbers(result, yardsticks, several),
        _forest(result, yardsticks),
        *_figures(folder),
        _per_class(result.get("per_class", {})),
        _facts(result),
    ]
    return "\n".join(part for part in parts if part)


def _verdicts(result, yardsticks):
    """How the model stands, in words."""
    if sentence := screen.kept(result):
        yield sentence
    for name, versus in _others(result, yardsticks).items():
        yield from screen.verdicts(result["model"], name, versus)


def _others(result, yardsticks):
    """{what the model was compared with: metric by metric}."""
    others = {label(name): one["versus"] for name, one in yardsticks.items()}
    start = result["start"]
    trained = start and start["kept"] < len(result["seeds"])
    return others | ({"its own start": start["versus"]} if trained else {})


def _numbers(result, yardsticks, several):
    selected = result["selected"]
    rows = [(f"{result['model']}, selected on validation", percents(selected), True)]
    if several:
        rows.append(("std over seeds", [percent(selected[metric]["std"]) for metric in METRICS], False))
    rows.append(("95 % over classes", [span(selected[metric]["interval_classes"]) for metric in METRICS], False))
    if best := result["best_on_test"]:
        rows.append(("best on test, as papers report", percents(best), False))
    if start := result["start"]:
        rows.append(("its start, the closed form", percents(start), False))
    rows += [(f"{label(name)}, selected on validation", percents(one), False) for name, one in yardsticks.items()]
    chance = result["chance"]
    rows.append(("chance", [percent(chance[metric]) if metric in chance else "" for metric in METRICS], False))
    return _table("", rows)


def _table(caption, rows):
    lines = [
        f"<tr{' class=ours' * ours}><td>{_text(name)}</td>{''.join(f'<td>{_text(cell)}</td>' for cell in cells)}</tr>"
        for name, cells, ours in rows
    ]
    head = "".join(f"<th>{metric}</th>" for metric in METRICS)
    said = f"<caption>{_text(caption)}</caption>" if caption else ""
    return f"<div class=wide><table>{said}<tr><th></th>{head}</tr>\n" + "\n".join(lines) + "</table></div>"


def _forest(result, yardsticks):
    """Differences paired by class, with their intervals: right of the line the model is better."""
    lines = [
        (f"{metric} against {name}", versus[metric]["difference"], *versus[metric]["interval"])
        for name, versus in _others(result, yardsticks).items()
        for metric in _COMPARED
        if known(versus[metric]["difference"])
    ]
    if not lines:
        return ""
    left, right, step = 210, 620, 22
    reach = max(0.01, *(abs(value) for _, *values in lines for value in values))

    def place(value):
        return left + (right - left) * (value + reach) / (2 * reach)

    drawn = []
    for number, (name, difference, low, high) in enumerate(lines):
        y = step * (number + 1)
        kind = "ahead" if low > 0 else "behind" if high < 0 else ""
        drawn.append(
            f'<text x="0" y="{y + 4}">{_text(name)}</text>'
            f'<line class="{kind}" x1="{place(low):.1f}" x2="{place(high):.1f}" y1="{y}" y2="{y}" stroke-width="2"/>'
            f'<circle class="{kind}" cx="{place(difference):.1f}" cy="{y}" r="4" fill="currentColor"/>'
            f'<text x="{right + 10}" y="{y + 4}">{percent(difference, "+")} [{percent(low)}, {percent(high)}]</text>'
        )
    height = step * (len(lines) + 1)
    return (
        "<h3>Differences, paired by class</h3>\n<div class=wide>"
        f'<svg viewBox="0 0 780 {height}" width="780" height="{height}" role="img" aria-label="paired differences">'
        f'<line x1="{place(0)}" x2="{place(0)}" y1="4" y2="{height - 6}" stroke-dasharray="3 3"/>{"".join(drawn)}</svg>'
        "</div>\n<p class=soft>Points of accuracy with 95 % intervals over classes; right of the line the model is "
        "better.</p>"
    )


def _figures(folder):
    """The pictures of a run, as many as fit, in their order."""
    attention = sorted(folder.glob("attention-*.png"))[:_ATTENTION]
    captions = {folder / name: said for name, said in _FIGURES.items()}
    captions |= dict.fromkeys(attention, "Where the model looks, in a test image.")
    left = _MOST
    for path, caption in captions.items():
        if not path.is_file():
            continue
        content = base64.b64encode(path.read_bytes()).decode()
        left -= len(content)
        if left < 0:
            yield f"<p class=soft>{_text(path.name)} and what follows it is left out: it would not fit.</p>"
            return
        said = _text(caption)
        yield (
            f'<figure><img alt="{said}" src="data:image/png;base64,{content}"><figcaption>{said}</figcaption></figure>'
        )


def _per_class(accuracies):
    """A bar for each class, the worst first."""
    words = {"T": "unseen images among unseen classes", "S": "seen images among all classes"}
    parts = []
    for metric, said in words.items():
        if classes := accuracies.get(metric):
            bars = "".join(
                f"<span>{_text(name)}</span>"
                f'<span><div class=bar style="width: {100 * value:.1f}%"></div></span><span>{percent(value)}</span>'
                for name, value in sorted(classes.items(), key=lambda one: one[1])
            )
            parts.append(
                f"<details{' open' * (metric == 'T')}><summary>{metric} by class: {said}</summary>"
                f"<div class=bars>{bars}</div></details>"
            )
    return "<h3>Classes</h3>\n" + "\n".join(parts) if parts else ""


def _facts(result):
    """What is needed to make the run again."""
    facts = {
        "command": result.get("command"),
        "commit": result.get("commit"),
        "data": result.get("dataset_digest"),
        "gamma": ", ".join(f"{gamma:.4g}" for gamma in result.get("gamma", [])),
        "wall time": f"{result['wall_seconds']} s" if "wall_seconds" in result else None,
        **result["versions"],
    }
    known_facts = {name: one for name, one in facts.items() if one is not None}
    lines = "".join(
        f"<tr><td>{_text(name)}</td><td><code>{_text(one)}</code></td></tr>" for name, one in known_facts.items()
    )
    settings = "".join(
        f"<tr><td>{_text(name)}</td><td><code>{_text(one)}</code></td></tr>" for name, one in result["config"].items()
    )
    return (
        f"<h3>How it was made</h3>\n<div class=wide><table>{lines}</table></div>\n"
        f"<details><summary>settings</summary><div class=wide><table>{settings}</table></div></details>"
    )


def _text(content):
    return html.escape(str(content))
