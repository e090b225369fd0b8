"""python -m experiments.gpu: tries the package on the GPU of this machine and writes one file to send back.

It names the machine, runs the tests marked gpu for each model, and measures steps, images and memory at the papers'
sizes. Each part has a process of its own, so that one that fails or runs out of memory ends no other. Where the file
has a part that went well, the part is not repeated: the same command goes on after a kill. `make gpu-check` installs
what it needs.
"""

import dataclasses
import json
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ElementTree

from zslkeras import atomic
from zslkeras.cli import flags
from zslkeras.errors import Failed, InputError
from zslkeras.names import MODELS
from zslkeras.structure import Each

MACHINE = "machine"
MEASURED = ("matmul", "aspn", "jlaf", "msdn", "drmn", "sit", "dcen_large", "prepare", "determinism")
TESTS = {f"test-{name}": name for name in MODELS}
_SAME = ("gpus", "commit")  # of the machine's figures: parts that differ in these do not belong into one file
_REPORT = {"device": str, "parts": Each({"ok": bool})}
_SAID = 2000  # letters kept of what a part that failed said last


@dataclasses.dataclass(frozen=True)
class Settings:
    """The check"""

    out: str = flags.flag("gpu-check.json", "the file to write; parts that went well are not repeated")
    only: tuple[str, ...] = flags.flag((), "names of the parts to run; all if not given", choices=(*TESTS, *MEASURED))
    seconds: int = flags.flag(3600, "after which a part is given up", least=1)
    rehearse: bool = flags.flag(False, "run on the CPU, to see that the check itself works")


def main(settings):
    path = pathlib.Path(settings.out)
    device = "cpu" if settings.rehearse else "gpu"
    report = atomic.read_json(path, _REPORT) or {"device": device, "parts": {}}
    if report["device"] != device:
        raise InputError(f"--out: {path} was written on the {report['device']}; wanted another file for the {device}")
    parts = report["parts"]
    _look_at(parts, path, settings)
    names = settings.only or (*TESTS, *MEASURED)
    for name in names:
        if parts.get(name, {}).get("ok"):
            print(f"{name}: done before", flush=True)
            continue
        start = time.monotonic()
        part = _tested(TESTS[name], settings) if name in TESTS else _measured(name, settings)
        parts[name] = part | {"seconds": round(time.monotonic() - start, 1)}
        atomic.write_json(path, report)
        print(f"{name}: {'ok' if part['ok'] else 'FAILED'} in {parts[name]['seconds']:.0f} s", flush=True)
    print(f"written: {path}")
    if failed := [name for name in names if not parts[name]["ok"]]:
        raise Failed(f"{', '.join(failed)} failed; {path} has what was said")


def _look_at(parts, path, settings):
    """Names the machine each time: without a GPU, or on another one, all that follows would be in vain."""
    now = _measured(MACHINE, settings)
    if not now["ok"] or not (now["figures"]["gpus"] or settings.rehearse):
        said = now.get("said", "it names none").strip().rpartition("\n")[2]
        raise InputError(
            f"no GPU that TensorFlow can use ({said}); wanted one, its driver and the extra [cuda], or --rehearse"
        )
    before = parts.setdefault(MACHINE, now)["figures"]
    for what in _SAME:
        if before[what] != now["figures"][what]:
            raise InputError(
                f"--out: {path} has {what} {before[what]}, now {now['figures'][what]}; wanted another file"
            )


def _measured(name, settings):
    """A measurement of `experiments.speed`, in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        figures = pathlib.Path(folder) / "figures.json"
        part = _process(["-m", "experiments.speed", "--only", name, "--json", figures], settings)
        return part | ({"figures": json.loads(figures.read_text())[name]} if part["ok"] else {})


def _tested(model, settings):
    """The tests marked gpu of a model: how each ended."""
    with tempfile.TemporaryDirectory() as folder:
        told = pathlib.Path(folder) / "tests.xml"
        longer = [other for other in MODELS if model in other and model != other]
        names = " and not ".join([model, *longer])
        option = "--gpu=cpu" if settings.rehearse else "--gpu"
        part = _process(["-m", "pytest", "-m", "gpu", "-k", names, option, f"--junitxml={told}", "tests"], settings)
        if not told.is_file():
            return part | {"ok": False}
        cases = ElementTree.parse(told).getroot().iter("testcase")
        return part | {"figures": {case.get("name"): _ended(case) for case in cases}}


def _ended(case):
    seconds = round(float(case.get("time")), 1)
    wrong = case.find("failure") if case.find("failure") is not None else case.find("error")
    return {"ok": wrong is None, "seconds": seconds} | ({} if wrong is None else {"said": wrong.get("message")[:_SAID]})


def _process(arguments, settings):
    environment = os.environ | ({"CUDA_VISIBLE_DEVICES": "-1"} if settings.rehearse else {})
    code, said = _run([sys.executable, *map(str, arguments)], environment, settings.seconds)
    if code is None:
        said += f"\ngiven up after {settings.seconds} s"
    return {"ok": True} if code == 0 else {"ok": False, "said": said[-_SAID:]}


def _run(command, environment, seconds):
    """(exit code, what it said) of a command; no code if it was given up, with all that it had started."""
    process = subprocess.Popen(
        command,
        cwd=pathlib.Path(__file__).parents[1],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        said, _ = process.communicate(timeout=seconds)
        return process.returncode, said
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        return None, process.communicate()[0]


COMMAND = flags.Command("python -m experiments.gpu", __doc__, Settings, example="python -m experiments.gpu --rehearse")

if __name__ == "__main__":
    COMMAND(main)
