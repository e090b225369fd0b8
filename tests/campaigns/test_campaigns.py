"""The campaigns in short: that they work, and that they see what is wrong."""

import re

import pytest

from tests.campaigns import attacks, kills

pytest.importorskip("zslkeras.serving.rest", reason="needs the extra [serve]")


@pytest.mark.long
def test_a_kill_during_an_export():
    """Kills of the others at chosen moments are tested where they are."""
    said = []
    assert kills.campaign(1, 0, ("export",), said.append) == 0, said
    assert re.fullmatch(r"kills: 1 in \d+ rounds of 1 commands; 0 rounds ended otherwise or hung", said[-1])


@pytest.mark.slow
def test_a_crowd_and_a_second_of_each_attack():
    said = []
    assert attacks.campaign(100, 8, 1, say=said.append) == 0, said
    assert said[0] == "crowd: 100 requests of 8 clients; 0 wrong answers []"


def test_a_round_that_ends_otherwise_is_told(monkeypatch):
    def differs(*_):
        raise AssertionError("x.mat differ")

    monkeypatch.setattr(kills, "Place", lambda folder: None)
    monkeypatch.setattr(kills.Rounds, "round", differs)
    said = []
    assert kills.campaign(1, 0, ("prepare",), said.append) == 1
    assert said == ["prepare: x.mat differ", "kills: 1 in 1 rounds of 1 commands; 1 rounds ended otherwise or hung"]
