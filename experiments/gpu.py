"""python -m experiments.gpu: tries the package on the GPU of this machine and writes one file to send back.

It names the machine, runs the tests marked gpu, and measures steps, images and memory at the papers' sizes. Each part
has a process of its own, so that one that fails or runs out of memory ends no other. Where the file has a part that
went well, the part is not repeated: the same command goes on after a kill. `make gpu-check` installs what it needs.
"""

import dataclasses
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ElementTree

from zslkeras import atomic
from zslkeras.cli import flags
from zslkeras.errors import Failed, InputError
from zslkeras.structure import Each

MEASURED = ("machine", "matmul", "aspn", "jlaf", "msdn", "drmn", "sit", "dcen_large", "prepare", "determinism")
TESTS = "tests"
_REPORT = {"device": str, "parts": Each({"ok": bool})}
_SAID = 2000  # letters kept of what a part that failed said last


@dataclasses.dataclass(frozen=True)
class Settings:
    """The check"""

    out: str = flags.flag("gpu-check.json", "the file to write; parts that went well are not repeated")
    only: tuple[str, ...] = flags.flag((), "names of the parts to run; all if not given", choices=(*MEASURED, TESTS))
    seconds: int = flags.flag(1800, "after which a part is given up", least=1)
    rehearse: bool = flags.flag(False, "run on the CPU, to see that the check itself works")


def main(settings):
    path = pathlib.Path(settings.out)
    report = atomic.read_json(path, _REPORT)
    parts = report.setdefault("parts", {})
    device = "cpu" if settings.rehearse else "gpu"
    if report.setdefault("device", device) != device:
        raise InputError(f"--out: {path} was written on the {report['device']}; wanted another file for the {device}")
    # Others would be in vain without a GPU, so it comes first.
    names = ["machine", *(name for name in (TESTS, *MEASURED[1:]) if name in settings.only or not settings.only)]
    for name in names:
        if parts.get(name, {}).get("ok"):
            print(f"{name}: done before", flush=True)
            continue
        start = time.monotonic()
        part = _tests(settings) if name == TESTS else _measured(name, settings)
        parts[name] = part | {"seconds": round(time.monotonic() - start, 1)}
        if name == "machine" and not settings.rehearse and not part.get("figures", {}).get("gpus"):
            said = part.get("said", "it names none").strip().rpartition("\n")[2]
            raise InputError(
                f"no GPU that TensorFlow can use ({said}); wanted one, its driver and the extra [cuda], or --rehearse"
            )
        atomic.write_json(path, report)
        print(f"{name}: {'ok' if part['ok'] else 'FAILED'} in {parts[name]['seconds']:.0f} s", flush=True)
    failed = [name for name in names if not parts[name]["ok"]]
    print(f"written: {path}")
    if failed:
        raise Failed(f"{', '.join(failed)} failed; {path} has what was said")


def _measured(name, settings):
    """A measurement of `experiments.speed`, in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        figures = pathlib.Path(folder) / "figures.json"
        part = _process(["-m", "experiments.speed", "--only", name, "--json", figures], settings)
        return part | ({"figures": json.loads(figures.read_text())[name]} if part["ok"] else {})


def _tests(settings):
    """The tests marked gpu: how each ended."""
    with tempfile.TemporaryDirectory() as folder:
        told = pathlib.Path(folder) / "tests.xml"
        option = "--gpu=cpu" if settings.rehearse else "--gpu"
        command = ["-m", "pytest", "-q", "-m", "gpu", option, f"--junitxml={told}", "tests"]
        part = _process(command, settings)
        if not told.is_file():
            return part | {"ok": False}
        cases = ElementTree.parse(told).getroot().iter("testcase")
        return part | {"figures": {case.get("name"): _ended(case) for case in cases if not _left_out(case)}}


def _ended(case):
    seconds = round(float(case.get("time")), 1)
    wrong = case.find("failure") if case.find("failure") is not None else case.find("error")
    return {"ok": wrong is None, "seconds": seconds} | ({} if wrong is None else {"said": wrong.get("message")[:_SAID]})


def _left_out(case):
    return case.find("skipped") is not None


def _process(arguments, settings):
    environment = dict(os.environ)
    if settings.rehearse:
        environment["CUDA_VISIBLE_DEVICES"] = "-1"
    command, here = [sys.executable, *map(str, arguments)], pathlib.Path(__file__).parents[1]
    said = {"capture_output": True, "text": True}
    try:
        done = subprocess.run(command, cwd=here, env=environment, timeout=settings.seconds, **said)
    except subprocess.TimeoutExpired:
        return {"ok": False, "said": f"given up after {settings.seconds} s"}
    said = done.stdout + done.stderr
    return {"ok": done.returncode == 0} | ({} if done.returncode == 0 else {"said": said[-_SAID:]})


COMMAND = flags.Command("python -m experiments.gpu", __doc__, Settings, example="python -m experiments.gpu --rehearse")

if __name__ == "__main__":
    COMMAND(main)
