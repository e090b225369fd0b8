"""The work of `experiments.speed`: figures as a table, beside goals, a former file, or another checkout."""

import os
import pathlib
import statistics
import subprocess
import sys
import tempfile

from experiments import measurements
from zslkeras import atomic
from zslkeras.errors import Failed, InputError
from zslkeras.evaluation import tables

# name of a figure: (at least or at most, which value), on two quiet cores in float32.
GOALS = {
    "aspn, milliseconds": ("at most", 160.0),
    "aspn, share_of_matmul_rate": ("at least", 0.70),
    "jlaf, cub, share_of_matmul_rate": ("at least", 0.80),
    "jlaf, sun, share_of_matmul_rate": ("at least", 0.80),
    "msdn, awa2, float32, share_of_float32_matmul_rate": ("at least", 0.75),
    "msdn, sun, float32, share_of_float32_matmul_rate": ("at least", 0.75),
    "drmn, cub, float32, share_of_float32_matmul_rate": ("at least", 0.75),
}


def measure(names, repeats, file=None, against=None):
    """Measures, prints the table, and writes the figures.

    Args:
        names: of the measurements.
        repeats: of each timing, or turns.
        file: JSON that gets the figures; None for none.
        against: a file of earlier figures, the folder of another checkout, or None.
    """
    other = against and pathlib.Path(against)
    if other and other.is_dir():
        figures, theirs, ratios = _in_turns(names, repeats, other)
    else:
        theirs = _read(other) if other else {}
        figures, ratios = {}, None
        for name in names:
            figures[name] = getattr(measurements, name)(repeats)
            print(f"measured {name}", file=sys.stderr, flush=True)
    print(table(figures, theirs, ratios))
    if file:
        atomic.write_json(pathlib.Path(file), figures)


def table(figures, theirs=None, ratios=None):
    """Figures as text, with the goal of those that have one.

    Args:
        figures: {measurement: its figures}.
        theirs: figures to compare with, or None.
        ratios: {name of a figure: ours over theirs}, measured pairwise; the quotients of the figures if None.
    """
    ours, others = flat(figures), flat(theirs or {})
    if ratios is None:
        ratios = {name: ours[name] / others[name] for name in ours if others.get(name)}
    rows = []
    for name, value in ours.items():
        versus = [_short(others[name]) if name in others else "", f"{ratios[name]:.3f}" if name in ratios else ""]
        rows.append((name, [_short(value), _goal(name, value), *(versus if theirs else [])]))
    columns = ["figure", "goal", *(["theirs", "ours / theirs"] if theirs else [])]
    return tables.grid("speed", columns, rows)


def flat(figures, above=()):
    """{name: number} of nested figures; what is no number, as versions are, is left out."""
    found = {}
    for name, value in figures.items():
        if isinstance(value, dict):
            found |= flat(value, (*above, name))
        elif isinstance(value, int | float) and not isinstance(value, bool):
            found[", ".join((*above, name))] = value
    return found


def _goal(name, value):
    if name not in GOALS:
        return ""
    side, goal = GOALS[name]
    met = value >= goal if side == "at least" else value <= goal
    return f"{side} {_short(goal)}: {'met' if met else 'missed'}"


def _short(value):
    return f"{value:.4g}"


def _read(path):
    figures = atomic.read_json(path)
    if not figures:
        raise InputError(f"against: no file or folder {path}; wanted one that --json wrote, or another checkout")
    return figures


def _in_turns(names, turns, checkout):
    """Our figures, those of another checkout, each the median over turns, and {name: median of their ratios}."""
    if not (checkout / "experiments/speed.py").is_file():
        raise InputError(f"against: {checkout} has no experiments/speed.py; wanted the folder of a checkout")
    here, ours, theirs = pathlib.Path(__file__).parents[1], [], []
    for turn in range(turns):
        sides = [(here, ours), (checkout, theirs)]
        for place, found in sides[:: -1 if turn % 2 else 1]:  # neither is always the second
            found.append(flat(_measured_in(place.resolve(), names)))
            print(f"turn {turn + 1} of {turns}: measured {place}", file=sys.stderr, flush=True)
    pairs = list(zip(ours, theirs, strict=True))
    ratios = {
        name: statistics.median(one[name] / other[name] for one, other in pairs)
        for name in ours[0]
        if all(name in one and other.get(name) for one, other in pairs)
    }
    return _medians(ours), _medians(theirs), ratios


def _medians(several):
    return {name: statistics.median(one[name] for one in several) for name in several[0]}


def _measured_in(checkout, names):
    """The figures that a process of a checkout measures once."""
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "figures.json"
        asked = ["--only", ",".join(names), "--repeats", "1", "--json", str(path)]
        done = subprocess.run(
            [sys.executable, "-P", "-m", "experiments.speed", *asked],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(checkout)},
            capture_output=True,
            text=True,
        )
        if done.returncode:
            raise Failed(f"{checkout}: experiments.speed failed: {done.stderr.strip().splitlines()[-1:]}")
        return atomic.read_json(path)
