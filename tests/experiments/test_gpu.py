"""The check of a GPU: each part in its own process, what failed is told and tried again, what went well is kept."""

import json
import subprocess

import pytest

from experiments import gpu
from tests.support import commands


@pytest.fixture
def check(tmp_path, monkeypatch):
    """Calls the command; returns how it ended and what the file holds."""

    def call(*flags):
        ran = commands.call(gpu, tmp_path, tmp_path, tmp_path, *flags)
        path = tmp_path / "gpu-check.json"
        return ran, json.loads(path.read_text()) if path.is_file() else None

    return call


@pytest.fixture
def processes(monkeypatch):
    """The commands that were started, and in their place what is set: {word of the command: (code, figures)}."""
    asked, answers = [], {}

    def run(command, **options):
        name = next((one for one in gpu.MEASURED if one in command), gpu.TESTS)
        asked.append((name, options["env"].get("CUDA_VISIBLE_DEVICES")))
        code, figures = answers.get(name, (0, {"gpus": ["H200"]}))
        if figures == "late":
            raise subprocess.TimeoutExpired(command, options["timeout"])
        if "--json" in command and not code:
            with open(command[command.index("--json") + 1], "w") as file:
                json.dump({name: figures}, file)
        return subprocess.CompletedProcess(command, code, "", f"said by {name}")

    monkeypatch.setattr(gpu.subprocess, "run", run)
    return asked, answers


def test_without_a_gpu_it_is_one_sentence_and_no_file(check, processes):
    asked, answers = processes
    for answers["machine"] in ((0, {"gpus": []}), (1, None)):
        ran, report = check()
        commands.assert_refused(ran, "no GPU that TensorFlow can use", "[cuda]", "--rehearse")
        assert report is None
    assert {name for name, _ in asked} == {"machine"}


def test_a_part_that_fails_ends_no_other_and_is_tried_again(check, processes):
    asked, answers = processes
    answers |= {"matmul": (1, None), "sit": (0, "late")}
    ran, report = check("--only", "matmul,sit,msdn", "--seconds", "7")
    assert ran.code == 1 and "matmul, sit failed" in ran.err
    assert {name: part["ok"] for name, part in report["parts"].items()} == {
        "machine": True,
        "matmul": False,
        "msdn": True,
        "sit": False,
    }
    assert report["parts"]["matmul"]["said"] == "said by matmul"
    assert report["parts"]["sit"]["said"] == "given up after 7 s"
    asked.clear()
    answers.clear()
    ran, report = check("--only", "matmul,sit,msdn")
    assert ran.code == 0 and [name for name, _ in asked] == ["matmul", "sit"]
    assert all(part["ok"] for part in report["parts"].values())


def test_a_rehearsal_sees_no_gpu_and_is_not_taken_for_the_check(check, processes):
    asked, answers = processes
    answers["machine"] = (0, {"gpus": []})
    ran, report = check("--rehearse", "--only", "matmul")
    assert ran.code == 0 and report["device"] == "cpu"
    assert asked == [("machine", "-1"), ("matmul", "-1")]
    commands.assert_refused(check("--only", "matmul")[0], "written on the cpu", "for the gpu")


def test_the_tests_marked_gpu_are_told_one_by_one(tmp_path, monkeypatch):
    told = """<testsuites><testsuite>
      <testcase name="right" time="1.5"/>
      <testcase name="wrong" time="0.25"><failure message="3 is not 4"/></testcase>
      <testcase name="broken" time="0"><error message="no file"/></testcase>
      <testcase name="elsewhere" time="0"><skipped message="needs --gpu"/></testcase>
    </testsuite></testsuites>"""

    def run(command, **_):
        (path,) = (one.removeprefix("--junitxml=") for one in command if one.startswith("--junitxml="))
        with open(path, "w") as file:
            file.write(told)
        return subprocess.CompletedProcess(command, 1, "", "")

    monkeypatch.setattr(gpu.subprocess, "run", run)
    assert gpu._tests(gpu.Settings()) == {
        "ok": False,
        "said": "",
        "figures": {
            "right": {"ok": True, "seconds": 1.5},
            "wrong": {"ok": False, "seconds": 0.2, "said": "3 is not 4"},
            "broken": {"ok": False, "seconds": 0.0, "said": "no file"},
        },
    }


def test_a_real_rehearsal_of_two_parts(check):
    ran, report = check("--rehearse", "--only", "matmul")
    assert ran.code == 0, ran.err
    assert report["parts"]["machine"]["figures"]["gpus"] == []
    assert set(report["parts"]["matmul"]["figures"]) == {"gflop_per_second", "bfloat16_gflop_per_second"}
