"""The check of a GPU: each part in its own process, what failed is told and tried again, what went well is kept."""

import json
import sys
import time

import pytest

from experiments import gpu
from tests.support import commands

H200 = {"gpus": ["H200"], "commit": "abc"}


@pytest.fixture
def check(tmp_path):
    """Calls the command; returns how it ended and what the file holds."""

    def call(*flags):
        ran = commands.call(gpu, tmp_path, tmp_path, tmp_path, *flags)
        path = tmp_path / "gpu-check.json"
        return ran, json.loads(path.read_text()) if path.is_file() else None

    return call


@pytest.fixture
def processes(monkeypatch):
    """The names of the parts that were started, and in place of their processes what is set: {name: (code, figures)}.

    Tests leave the three cases of `TOLD`.
    """
    asked, answers = [], {}

    def run(command, environment, seconds):
        del seconds
        name = command[command.index("--only") + 1] if "--only" in command else f"test-{command[6].split()[0]}"
        asked.append((name, environment.get("CUDA_VISIBLE_DEVICES")))
        code, figures = answers.get(name, (0, H200))
        if "--json" in command and code == 0:
            with open(command[command.index("--json") + 1], "w") as file:
                json.dump({name: figures}, file)
        for path in (word.removeprefix("--junitxml=") for word in command if word.startswith("--junitxml=")):
            with open(path, "w") as file:
                file.write(TOLD)
        return code, f"said by {name}"

    monkeypatch.setattr(gpu, "_run", run)
    return asked, answers


TOLD = """<testsuites><testsuite>
  <testcase name="right" time="1.5"/>
  <testcase name="wrong" time="0.25"><failure message="3 is not 4"/></testcase>
  <testcase name="broken" time="0"><error message="no file"/></testcase>
</testsuite></testsuites>"""


def test_without_a_gpu_it_is_one_sentence_and_no_file(check, processes):
    asked, answers = processes
    for answers["machine"] in ((0, {"gpus": [], "commit": "abc"}), (1, None)):
        ran, report = check()
        commands.assert_refused(ran, "no GPU that TensorFlow can use", "[cuda]", "--rehearse")
        assert report is None
    assert {name for name, _ in asked} == {"machine"}


def test_a_part_that_fails_ends_no_other_and_is_tried_again(check, processes):
    asked, answers = processes
    answers |= {"matmul": (1, None), "sit": (None, None)}
    ran, report = check("--only", "matmul,sit,msdn", "--seconds", "7")
    assert ran.code == 1 and "matmul, sit failed" in ran.err
    ended = {name: part["ok"] for name, part in report["parts"].items()}
    assert ended == {"machine": True, "matmul": False, "msdn": True, "sit": False}
    assert report["parts"]["matmul"]["said"] == "said by matmul"
    assert report["parts"]["sit"]["said"] == "said by sit\ngiven up after 7 s"
    asked.clear()
    answers.clear()
    ran, report = check("--only", "matmul,sit,msdn")
    assert ran.code == 0 and [name for name, _ in asked] == ["machine", "matmul", "sit"]
    assert all(part["ok"] for part in report["parts"].values())
    answers["machine"] = (0, {"gpus": ["A100"], "commit": "abc"})
    commands.assert_refused(check("--only", "matmul")[0], "has gpus ['H200'], now ['A100']", "another file")


def test_a_rehearsal_sees_no_gpu_and_is_not_taken_for_the_check(check, processes):
    asked, answers = processes
    answers["machine"] = (0, {"gpus": [], "commit": "abc"})
    ran, report = check("--rehearse", "--only", "matmul")
    assert ran.code == 0 and report["device"] == "cpu"
    assert asked == [("machine", "-1"), ("matmul", "-1")]
    commands.assert_refused(check("--only", "matmul")[0], "written on the cpu", "for the gpu")


def test_the_tests_of_a_model_are_told_one_by_one(check, processes, monkeypatch):
    commands_, run = [], gpu._run
    monkeypatch.setattr(gpu, "_run", lambda command, *more: (commands_.append(command), run(command, *more))[1])
    ran, report = check("--only", "test-drmn")
    assert ran.code == 0, ran.err
    assert "drmn and not drmn_pictures" in commands_[-1] and "--gpu" in commands_[-1]
    assert report["parts"]["test-drmn"]["figures"] == {
        "right": {"ok": True, "seconds": 1.5},
        "wrong": {"ok": False, "seconds": 0.2, "said": "3 is not 4"},
        "broken": {"ok": False, "seconds": 0.0, "said": "no file"},
    }


def test_a_process_that_is_given_up_takes_along_what_it_started(tmp_path):
    marks = tmp_path / "alive"
    child = f"import time, pathlib\nwhile True: pathlib.Path({str(marks)!r}).touch(); time.sleep(0.05)"
    parent = f"import subprocess, sys; print('begun', flush=True); subprocess.run([sys.executable, '-c', {child!r}])"
    code, said = gpu._run([sys.executable, "-c", parent], None, 2)
    assert code is None and said == "begun\n" and marks.exists()
    marks.unlink()
    time.sleep(0.3)
    assert not marks.exists()


@pytest.mark.long
def test_a_real_rehearsal_of_two_parts(check):
    ran, report = check("--rehearse", "--only", "matmul")
    assert ran.code == 0, ran.err
    assert report["parts"]["machine"]["figures"]["gpus"] == []
    assert set(report["parts"]["matmul"]["figures"]) == {"gflop_per_second", "bfloat16_gflop_per_second"}
