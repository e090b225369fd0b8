"""The pages of docs/results, made of the files that `experiments.campaign` leaves, and of nothing else."""

import collections
import dataclasses
import functools
import itertools
import json
import pathlib

import numpy as np

from experiments import markdown, published
from zslkeras import atomic
from zslkeras.errors import InputError
from zslkeras.evaluation import metrics, tables, uncertainty
from zslkeras.names import YARDSTICKS

FORMAT = 1  # of a file; a new layout gets a new number
FOLDER = "measured"  # of the files, in the folder of results
WHOLE = "defaults"  # the row of a method with all of its parts
TOGETHER = "together.md"  # the page of all benchmarks
_STAGES = {"test": "Published test classes", "validation": "Validation classes"}
_COMPARED = "TH"

_MADE = "This page is made by `python -m experiments.report`; its numbers are those of the files in {}."
_HOW = (
    "Percent. Each number is a mean over seeds, ± their standard deviation (ddof 1) where there are several, with its "
    "95 % interval over classes in brackets: the mean of those of all seeds and folds. A gain is a difference "
    "paired class by class, with its interval over the classes of all folds. U0, S0, H0 are at gamma 0. Time is that "
    "of one seed: training and judging, in all its stages."
)
_POOLED = (
    "Published test classes, with the defaults. A gain is a difference paired class by class: in T, the mean over the "
    "classes of all benchmarks, and in H, the mean over benchmarks, where each draw of `shapes` counts as one. In "
    "brackets is its 95 % interval over classes."
)
_CHOSEN = {
    "test": "State and gamma were chosen on validation classes. What is best on test is what choosing on these classes "
    "would have given, as papers report.",
    "validation": "State and gamma were chosen on the very classes that are judged here, for every row in the same "
    "way: U, S and H look better than they are, and rows are to be compared with each other. Fold 0 has the published "
    "validation classes.",
}


def read(path):
    """The content of one file; empty where there is none."""
    content = atomic.read_json(pathlib.Path(path))
    if content and content.get("format") != FORMAT:
        raise InputError(f"{path}: has format {content.get('format')}; wanted {FORMAT}, which this version reads")
    return content


def write(results, docs, readme):
    """Makes the pages anew and removes those that no file speaks for, and puts the summary between the marks of the
    file `readme`, if there is one and it has them; returns what it did, as text."""
    docs, pages = pathlib.Path(docs), render(results)
    if pages and readme:
        text = pathlib.Path(readme).read_text(encoding="utf-8")
        if (new := with_summary(text, results)) != text:
            atomic.write_text(pathlib.Path(readme), new)
    for path in docs.glob("*.md"):
        if path.name not in pages:
            path.unlink()
    for name, text in pages.items():
        docs.mkdir(parents=True, exist_ok=True)
        atomic.write_text(docs / name, text)
    return f"{len(pages)} pages in {docs}" if pages else f"nothing is measured in {pathlib.Path(results) / FOLDER}"


def with_summary(text, results):
    """A text with a line for each benchmark and model between its marks."""
    variants, _ = _variants(_files(results))
    return markdown.between("report", text, _summary(variants) + "\n")


def render(results):
    """{file name: text} of all pages."""
    variants, left_out = _variants(_files(results))
    pages = {}
    for benchmark in sorted({one.benchmark for one in variants}):
        pages[f"{benchmark}.md"] = _of_benchmark(benchmark, variants, left_out)
    if together := _of_all(variants):
        pages[TOGETHER] = together
    for model in sorted({one.model for one in variants if one.name != one.model}):
        pages[f"{model}-ablations.md"] = _of_model(model, variants)
    return pages


def agree(one, other):
    """Whether settings are the same, as far as both have them: a model may have got new ones since."""
    return all(one[name] == other[name] for name in one.keys() & other.keys())


def row_of(content):
    """A row in words: its name, its preset, and what the command line changed."""
    preset = [f"preset {content['preset']}"] if content["preset"] else []
    return ", ".join([content["row"], *preset, *_pairs(content["changed"])])


def short(commit):
    """A commit as tables have it; "-dirty" stays."""
    return commit[:7] + "-dirty" * commit.endswith("-dirty") if commit else "?"


@dataclasses.dataclass(frozen=True)
class _Variant:
    """A row of a model with the same settings on all cases of a benchmark: a line of a table."""

    benchmark: str
    stage: str
    model: str
    row: str
    preset: str | None
    changed: tuple
    cases: dict  # key of the case: content of its file

    @property
    def first(self):
        return next(iter(self.cases.values()))

    @property
    def name(self):
        row = row_of(self.first)
        return self.model if row == WHOLE else f"{self.model}, {row.removeprefix(f'{WHOLE}, ')}"

    @property
    def seeds(self):
        return [one for content in self.cases.values() for one in content["seeds"]]


def _files(results):
    return [(path, read(path)) for path in sorted((pathlib.Path(results) / FOLDER).rglob("*.json"))]


def _variants(files):
    """Every variant, and the files that a newer one of the same name has replaced."""
    groups, variants, left_out = collections.defaultdict(list), [], []
    for path, content in files:
        changed = tuple(sorted((key, json.dumps(value)) for key, value in content["changed"].items()))
        names = [content[name] for name in ("benchmark", "stage", "model", "row", "preset")]
        groups[*names, changed].append((max(one["date"] for one in content["seeds"]), path, content))
    for key, several in groups.items():
        several.sort(key=lambda one: one[:2], reverse=True)
        settings, cases = several[0][2]["settings"], {}
        for _, path, content in several:
            case = json.dumps(content["case"], sort_keys=True)
            if not agree(content["settings"], settings) or case in cases:
                left_out.append(path)
            else:
                cases[case] = content
        variants.append(_Variant(*key, dict(sorted(cases.items()))))
    return variants, sorted(left_out)


# The pages.


def _summary(variants):
    """Each model with its defaults on each benchmark, in a table for each stage. A benchmark is on validation classes
    only as long as no method was judged on its test classes."""
    plain = [one for one in variants if one.name == one.model]
    opened = {one.benchmark for one in plain if one.stage == "test" and one.model not in YARDSTICKS}
    parts = []
    for stage, title in _STAGES.items():
        rows = [one for one in plain if one.stage == stage and (stage == "test") == (one.benchmark in opened)]
        if rows:
            parts.append(f"{title}:\n\n{_overview(rows)}")
    return "\n\n".join(parts)


def _overview(variants):
    """A table with a line for each of the variants of a stage, and how many methods are ahead of what."""
    others, rows = [*map(tables.label, YARDSTICKS), "its own start"], []
    counts = {other: collections.Counter() for other in others}
    for one in sorted(variants, key=lambda one: (one.benchmark, one.model not in YARDSTICKS, one.model)):
        beside = {other.model: other for other in variants if other.benchmark == one.benchmark}
        found = [_standing(one, beside.get(name)) for name in YARDSTICKS]
        found.append(_standing(one, one, "start") if one.first["seeds"][0]["start"] else ())
        for other, standing in zip(others, found, strict=True):
            counts[other].update(standing[:1] if one.model not in YARDSTICKS else ())
        chance = _list(dict.fromkeys(map(_chance, one.cases.values())))
        numbers = [_percent(_mean(one, metric)) for metric in _COMPARED]
        rows.append([one.benchmark, one.model, _seeds(one), chance, *numbers, *map(": ".join, found), _time(one)])
    columns = ["data", "model", "seeds", "chance", *_COMPARED, *(f"H against {other}" for other in others), "time"]
    said = [
        f"{other} {counted['ahead']} / {counted['level'] + counted['kept']} / {counted['behind']}"
        for other, counted in counts.items()
    ]
    return (
        f"{markdown.table(columns, rows)}\n\nMethods that are ahead / level / behind in H, against {', '.join(said)}."
    )


def _standing(one, other, of=None):
    """How a variant stands in H to another one, or to its own "start": a word, and by how much; () if not known."""
    if of and not any(seed["state"] for seed in one.seeds):
        return ("kept",)
    found = _paired(one, other, of) if other and (of or other is not one) else None
    if not found:
        return ()
    low, high = found[0]["H"]["interval"]
    return "ahead" if low > 0 else "behind" if high < 0 else "level", _gain(found[0]["H"], found[1])


def _of_benchmark(benchmark, variants, left_out):
    lines = [f"# {benchmark}", "", _MADE.format(f"`results/{FOLDER}/{benchmark}`"), "", _text(_HOW)]
    for stage, title in _STAGES.items():
        rows = [one for one in variants if (one.benchmark, one.stage, one.row) == (benchmark, stage, WHOLE)]
        if not rows:
            continue
        yardsticks = {one.model: one for one in rows if one.model in YARDSTICKS and one.name == one.model}
        rows.sort(key=lambda one: (one.model not in YARDSTICKS, one.model, one.name != one.model, one.name))
        columns = ["model", *(["folds"] if stage == "validation" else []), "seeds"]
        columns += ["T", "U", "S", "H", "AUSUC", "U0 / S0 / H0", *(["best on test, T / H"] if stage == "test" else [])]
        others = [*map(tables.label, YARDSTICKS), "its own start"]
        columns += [f"{metric} over {other}" for other in others for metric in _COMPARED]
        cells = [_line(one, stage, yardsticks) for one in rows]
        chance = ", ".join(dict.fromkeys(_chance(content) for one in rows for content in one.cases.values()))
        said = _text(_data(rows), f"By chance T is {chance}.", _CHOSEN[stage])
        lines += ["", f"## {title}", "", said, ""]
        lines += [markdown.table([*columns, "time", "commit"], cells)]
    older = [path.name for path in left_out if path.parent.parent.name == benchmark]
    if older:
        said = "Not shown, because a newer file has the same row with other settings or other data"
        lines += ["", _text(f"{said}: {', '.join(f'`{name}`' for name in older)}.")]
    return "\n".join(lines) + "\n"


def _of_all(variants):
    """How every method stands on all benchmarks that were judged on test classes; "" where these are less than two."""
    several, pooled = collections.defaultdict(list), {}
    for one in variants:
        if (one.stage, one.name) == ("test", one.model):
            several[one.model].append(one)
    for model, those in several.items():
        cases = {key: case for one in those for key, case in one.cases.items()}
        pooled[model] = dataclasses.replace(those[0], benchmark=_list(one.benchmark for one in those), cases=cases)
    methods = sorted(name for name in pooled if name not in YARDSTICKS and len(pooled[name].cases) > 1)
    if not methods:
        return ""
    others, rows = [*map(tables.label, YARDSTICKS), "its own start"], []
    for one in map(pooled.get, methods):
        found = [_gains(one, _where(one, pooled[name])) if name in pooled else ["", ""] for name in YARDSTICKS]
        found.append(_gains(one, one, "start") if all(seed["start"] for seed in one.seeds) else ["", ""])
        rows.append([one.model, one.benchmark, _seeds(one), *itertools.chain(*found)])
    columns = ["model", "benchmarks", "seeds", *(f"{metric} over {other}" for other in others for metric in _COMPARED)]
    return "\n".join(
        ["# All benchmarks together", "", _MADE.format(f"`results/{FOLDER}`"), "", _text(_POOLED), ""]
        + [markdown.table(columns, rows), ""]
    )


def _where(one, other):
    """Another variant on the cases of a variant alone."""
    return dataclasses.replace(other, cases={key: case for key, case in other.cases.items() if key in one.cases})


def _line(one, stage, yardsticks):
    cells = [one.name, *([_folds(one)] if stage == "validation" else []), _seeds(one)]
    cells += [_number(one, metric) for metric in ("T", "U", "S", "H", "AUSUC")]
    cells.append(" / ".join(_percent(_mean(one, metric)) for metric in ("U0", "S0", "H0")))
    if stage == "test":
        cells.append(" / ".join(_percent(_mean(one, metric, "best_on_test")) for metric in _COMPARED))
    for name in YARDSTICKS:
        other = yardsticks.get(name)
        cells += _gains(one, other) if other and other is not one else [""] * len(_COMPARED)
    cells += _gains(one, one, "start") if one.first["seeds"][0]["start"] else [""] * len(_COMPARED)
    return [*cells, _time(one), _commits(one)]


def _of_model(model, variants):
    lines = [
        f"# {model}: ablations and other settings",
        "",
        _MADE.format(f"`results/{FOLDER}/*/{model}`"),
        "",
        _text(_HOW),
    ]
    own = [one for one in variants if one.model == model]
    places = dict.fromkeys((one.benchmark, one.stage) for one in own)
    for benchmark, stage in sorted(places, key=lambda place: (place[0], [*_STAGES].index(place[1]))):
        here = [one for one in own if (one.benchmark, one.stage) == (benchmark, stage)]
        title = f"## {benchmark}, {_STAGES[stage].lower()}: "
        for preset, changed in sorted({(str(one.preset or ""), one.changed) for one in here if one.row != WHOLE}):
            rows = [one for one in here if (one.preset or "", one.changed) == (preset, changed)]
            shared = row_of({**rows[0].first, "row": "the defaults"}).removeprefix("the defaults, ")
            lines += ["", title + shared, ""]
            lines += _compared(model, rows, next((one for one in rows if one.row == WHOLE), None))
        others = [one for one in here if one.row == WHOLE and one.name != model]
        if others and (plain := [one for one in here if one.name == model]):
            lines += ["", title + "other settings", "", *_compared(model, [*others, *plain], *plain)]
    return "\n".join(lines) + "\n"


def _compared(model, rows, whole):
    """A table of rows of which one is the whole method, if that was measured, and what the paper says of them."""
    rows = sorted(rows, key=lambda one: (one is whole, one.first["place"] or 0, row_of(one.first)))
    lines = [_text(_data(rows), _beside(whole or rows[0]), _CHOSEN[rows[0].stage]), ""]
    columns = ["row", "differs in", "folds", "seeds", "T", "H", "H0", "AUSUC"]
    columns += [*(f"{metric}: {WHOLE} over it" for metric in _COMPARED), "time", "commit"]
    alike = len({(one.preset, one.changed) for one in rows}) == 1  # then the heading says what they share
    lines.append(
        markdown.table(columns, [_ablation(one, whole, one.row if alike else row_of(one.first)) for one in rows])
    )
    if claims := _claims(model, {one.row: one for one in rows}):
        lines += ["", "What the paper says, and whether it holds here:", "", claims]
    return lines


def _ablation(one, whole, name):
    settings = one.first["settings"]
    differs = {
        key: value for key, value in settings.items() if whole and value != whole.first["settings"].get(key, value)
    }
    cells = [name, ", ".join(_pairs(differs)), _folds(one), _seeds(one)]
    cells += [_number(one, metric) for metric in ("T", "H", "H0", "AUSUC")]
    cells += _gains(whole, one) if whole and whole is not one else [""] * len(_COMPARED)
    return [*cells, _time(one), _commits(one)]


def _claims(model, rows):
    """The claims of the paper whose two rows are both measured, with what is found here, as a table."""
    cells = []
    for claim in published.claims(model):
        at_zero = claim.behind == published.AT_ZERO
        first, second = rows.get(claim.ahead), rows.get(claim.ahead if at_zero else claim.behind)
        found = _paired(first, second, claim.behind if at_zero else None) if first and second else None
        if found:
            entries, shared = found
            told = [f"{_gain(entries[metric], shared)} {_verdict(entries[metric])}" for metric in claim.metrics]
            cells.append([claim.said, f"{claim.ahead} over {claim.behind}", *_columns(claim.metrics, told)])
    return markdown.table(["claim", "rows", *"TUSH"], cells) if cells else ""


def _columns(names, told):
    return [dict(zip(names, told, strict=True)).get(metric, "") for metric in "TUSH"]


def _verdict(entry):
    low, high = entry["interval"]
    return "holds" if low > 0 else "does not hold" if high < 0 else "cannot be told"


# What stands in a cell.


def _number(one, metric):
    """Mean over seeds and folds, ± over the seeds' means over folds, and the interval."""
    per_seed = _per_seed(one, metric)
    column = metrics.summary(per_seed)
    text = _percent(column["mean"])
    if len(per_seed) > 1:
        text += f" ± {_percent(column['std'])}"
    ends = [np.mean([_known(end) for end in ends]) for ends in _ends(one, metric)]
    return f"{text} [{', '.join(map(_percent, ends))}]" if tables.known(column["mean"]) else text


def _per_seed(one, metric, of="numbers"):
    """The mean over folds for each seed that all folds have."""
    by_case = [
        {entry["seed"]: _known(entry[of][metric]) for entry in content["seeds"]} for content in one.cases.values()
    ]
    shared = sorted(functools.reduce(set.intersection, map(set, by_case)))
    return [float(np.mean([seeds[seed] for seeds in by_case])) for seed in shared]


def _ends(one, metric):
    return zip(*(entry["intervals"][metric] for entry in one.seeds), strict=True)


def _mean(one, metric, of="numbers"):
    return float(np.mean(_per_seed(one, metric, of)))


def _known(value):
    """JSON has null for a metric without rows."""
    return np.nan if value is None else value


def _gains(one, other, of=None):
    """How far a variant is ahead of another one, or of its own "start", in each metric that is compared."""
    found = _paired(one, other, of)
    return [_gain(found[0][metric], found[1]) if found else "" for metric in _COMPARED]


def _gain(entry, shared):
    if not tables.known(entry["difference"]):
        return "-"
    low, high = (_percent(end, "+") for end in entry["interval"])
    return f"{_percent(entry['difference'], '+')} [{low}, {high}]" + (f" on {shared}" if shared else "")


def _paired(one, other, of=None):
    """(`uncertainty.paired` over the cases that both have, "" or which folds these are); None if they share none."""
    shared = [key for key in one.cases if key in other.cases and _images(one, key) == _images(other, key)]
    if not shared:
        return None
    sides = [[_rates(side.cases[key], part) for key in shared] for side, part in ((one, None), (other, of))]
    all_of_both = len(shared) == len(one.cases) == len(other.cases)
    return uncertainty.paired(*sides), "" if all_of_both else _list(one.cases[key]["case"]["fold"] for key in shared)


def _images(one, key):
    return one.cases[key]["images"]


def _rates(content, of=None):
    """{"T", "U", "S": accuracy of each class}, the mean over seeds; NaN for a class without images.

    Args:
        content: of a file.
        of: "start" for the untrained state, AT_ZERO for gamma 0; None for the result itself.
    """
    entries = [entry["start"] if of == "start" else entry for entry in content["seeds"]]
    names = {"T": "T", "U": "U0", "S": "S0"} if of == published.AT_ZERO else {name: name for name in "TUS"}
    images = {name: np.array(content["images"]["seen" if name == "S" else "unseen"], float) for name in names}
    with np.errstate(invalid="ignore"):
        return {
            name: np.mean([entry["right"][at] for entry in entries], axis=0) / images[name]
            for name, at in names.items()
        }


def _data(rows):
    """Which data the rows of a table were measured on."""
    cases = [content["case"] for one in rows for content in one.cases.values()]
    said = {", ".join(f"{key} {value}" for key, value in case.items() if key != "fold"): None for case in cases}
    counts = {
        f"{len(content['images']['seen'])} seen and {len(content['images']['unseen'])} unseen classes": None
        for one in rows
        for content in one.cases.values()
    }
    return f"Data: {'; '.join(said)}; {' or '.join(counts)}."


def _chance(content):
    unseen = np.count_nonzero(content["images"]["unseen"])
    return _percent(1 / unseen) if unseen else "-"


def _beside(one):
    weight = one.first["settings"].get("closed_form")
    if weight is None:
        return "No closed form stands beside the method."
    if weight:
        return f"A closed form stands beside the method (closed_form={weight}) in each row that does not say otherwise."
    return "The method stands alone, as in its paper (closed_form=0)."


def _folds(one):
    return _list(dict.fromkeys(content["case"]["fold"] for content in one.cases.values()))


def _seeds(one):
    return _list(sorted({len(content["seeds"]) for content in one.cases.values()}))


def _time(one):
    whole = all(entry["whole_time"] for entry in one.seeds)
    return ("" if whole else "more than ") + tables.duration(np.mean([entry["seconds"] for entry in one.seeds]))


def _commits(one):
    return ", ".join(dict.fromkeys(short(entry["commit"]) for entry in one.seeds))


def _pairs(settings):
    """Settings as they are given to --set."""
    return [
        f"{key}={','.join(map(str, value)) if isinstance(value, list) else value}" for key, value in settings.items()
    ]


def _percent(value, sign=""):
    """A fraction in percent, the same on every machine: sums in another order differ in their last bits."""
    return tables.percent(round(value, 9), sign) if tables.known(value) else "-"


def _text(*sentences):
    return markdown.filled(" ".join(sentences))


def _list(values):
    return ", ".join(map(str, values))
