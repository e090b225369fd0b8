"""Fetching the published archives from a server on this machine, over a bad line, and after a kill."""

import dataclasses
import json
import os
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pytest

from tests.benchmarks.conftest import MATS, PICTURES, SPLITS, Answer, digest, fetched, good, refused, tree, zipped
from tests.support.commands import ROOT
from zslkeras import atomic
from zslkeras.benchmarks import download
from zslkeras.benchmarks.archives import DATASETS, Part
from zslkeras.errors import InputError

pytestmark = pytest.mark.usefixtures("quick")


def test_fetching_leaves_the_archive_and_its_digest_and_is_not_repeated(server, offer, tmp_path, capsys):
    archive = offer(good())
    said = fetched(tmp_path)
    assert tree(tmp_path) == {"T/att_splits.mat", "downloads/t.zip", "downloads.json"}
    assert (tmp_path / "T" / "att_splits.mat").read_bytes() == SPLITS
    assert json.loads((tmp_path / "downloads.json").read_text()) == {
        "t.zip": {"url": archive.url, "size": len(good()), "sha256": digest(good())}
    }
    assert any("unverified" in line for line in said) and str(tmp_path / "downloads") in said[-1]
    assert "t.zip: downloading, MB: 1/1" in (shown := capsys.readouterr().err) and "MB/s" in shown
    assert fetched(tmp_path)[1:] == [f"t.zip: not needed, att_splits.mat in {tmp_path / 'T'} already"]
    (tmp_path / "T" / "att_splits.mat").unlink()
    fetched(tmp_path)  # out of the archive that stayed
    assert (tmp_path / "T" / "att_splits.mat").read_bytes() == SPLITS and len(server.asked) == 1


@pytest.mark.parametrize("tag", ['"1"', 'W/"1"', ""])
def test_a_cut_download_goes_on_where_it_was_cut(tag, server, offer, tmp_path):
    content = good()
    offer(content, sha256=digest(content), size=len(content))
    server.tag, server.answers = tag, [Answer(cut=0), Answer(cut=1), Answer(cut=150_000), Answer()]
    said = fetched(tmp_path)
    assert (tmp_path / "downloads" / "t.zip").read_bytes() == content
    version = tag if tag == '"1"' else None  # a weak tag does not promise the same bytes
    asked = [(None, None), (None, None), ("bytes=1-", version), ("bytes=150001-", version)]
    assert [pair for _, *pair in server.asked] == [list(pair) for pair in asked]
    assert sum("trying again" in line for line in said) == 3 and "cut after 1 of 300," in said[3]


def test_without_a_digest_the_length_tells_a_cut(server, offer, tmp_path):
    offer(good())
    server.answers = [Answer(cut=100_000)]
    fetched(tmp_path)
    assert (tmp_path / "downloads" / "t.zip").read_bytes() == good()


def test_where_the_server_says_no_length_the_table_tells_a_cut(server, offer, tmp_path):
    offer(good(), size=len(good()))
    server.answers = [Answer(cut=100_000, silent=True), Answer(silent=True)]
    fetched(tmp_path)
    assert (tmp_path / "downloads" / "t.zip").read_bytes() == good() and len(server.asked) == 2


def test_a_server_that_ignores_range_is_heard_from_the_start(server, offer, tmp_path):
    offer(good())
    server.answers = [Answer(cut=100_000), Answer(whole=True, cut=50_000), Answer(whole=True)]
    fetched(tmp_path)
    assert (tmp_path / "downloads" / "t.zip").read_bytes() == good()


@pytest.mark.parametrize("stubborn", [False, True])
def test_a_file_that_changes_between_attempts_is_not_mixed(stubborn, server, offer, tmp_path, monkeypatch):
    old, new = good(b"o" * 300_000), good(np.random.default_rng(1).bytes(300_000))
    offer(old)
    server.answers = [Answer(cut=100), Answer(stubborn=stubborn)]

    def change(_):
        server.content["t.zip"], server.tag = new, '"2"'

    monkeypatch.setattr(download.time, "sleep", change)
    fetched(tmp_path)
    assert (tmp_path / "downloads" / "t.zip").read_bytes() == new
    assert len(server.asked) == 2 + stubborn


@pytest.mark.parametrize("size", [250_000, 350_000])
def test_without_tags_another_length_tells_another_file(size, server, offer, tmp_path, monkeypatch):
    server.tag, new = "", good(np.random.default_rng(1).bytes(size))
    offer(good())
    server.answers = [Answer(cut=260_000)]
    monkeypatch.setattr(download.time, "sleep", lambda _: server.content.update({"t.zip": new}))
    fetched(tmp_path)
    assert (tmp_path / "downloads" / "t.zip").read_bytes() == new


def test_a_stalled_server_is_asked_again(server, offer, tmp_path, monkeypatch):
    monkeypatch.setattr(download, "_STALL_SECONDS", 0.5)  # only here, as a busy machine may be slower than this
    offer(good())
    server.answers = [Answer(cut=70_000, stall=50)]
    start = time.monotonic()
    said = fetched(tmp_path)
    assert time.monotonic() - start < 40 and any("timed out" in line for line in said)
    assert server.asked[1][1] == "bytes=70000-"


def test_attempts_end_with_how_to_go_on_and_the_next_run_does(server, offer, tmp_path, monkeypatch):
    waited = []
    monkeypatch.setattr(download, "_WAITS", (1, 5, 20))
    monkeypatch.setattr(download.time, "sleep", waited.append)
    offer(good())
    server.answers = [Answer(cut=100_000)] + 3 * [Answer(cut=0)]
    sentence = refused(
        tmp_path, "4 attempts in a row", "100,000 bytes are in", "run the same command again to continue"
    )
    assert waited == [1, 5, 20] and "\n" not in sentence
    assert tree(tmp_path) == {"downloads/t.zip.part", "downloads/t.zip.part.json"}
    fetched(tmp_path)
    assert server.asked[-1][1] == "bytes=100000-"
    assert tree(tmp_path) == {"T/att_splits.mat", "downloads/t.zip", "downloads.json"}


def test_attempts_that_get_further_are_counted_anew_and_others_are_not(server, offer, tmp_path, monkeypatch):
    monkeypatch.setattr(download, "_WAITS", (0,))
    content = good(np.random.default_rng(0).bytes(4_500_000))
    offer(content)
    server.answers = 4 * [Answer(cut=1_050_000)]
    fetched(tmp_path)
    assert (tmp_path / "downloads" / "t.zip").read_bytes() == content
    server.answers, server.asked[:] = 9 * [Answer(cut=2_000_000, whole=True)], []
    refused(tmp_path / "other", "2 attempts in a row")
    assert len(server.asked) == 2  # as far as before, not further


def test_a_length_too_large_ends_in_the_same_sentence(server, offer, tmp_path):
    offer(good())
    server.answers = 9 * [Answer(length=400_000)]
    refused(tmp_path, "nothing after the 300,", "4 attempts in a row", "run the same command again")
    assert len(server.asked) == 4 and not (tmp_path / "T").exists()


def test_a_length_that_is_not_the_published_one_is_refused_before_the_download(server, offer, tmp_path):
    content = good()
    archive = offer(content, size=len(content))
    server.answers = [Answer(length=1000)]
    refused(tmp_path, archive.url, "has 1,000 bytes", f"wanted {len(content):,}")
    assert tree(tmp_path) == set()


def test_a_length_too_small_does_not_pass_for_the_archive(server, offer, tmp_path):
    offer(good())
    server.answers = [Answer(length=1000)]
    refused(tmp_path, "damaged", "wanted a whole archive", "remove it to have it downloaded again")
    assert tree(tmp_path) == {"downloads/t.zip"}  # and no digest on record


@pytest.mark.parametrize("silent", [False, True])
def test_more_than_the_bound_is_not_taken(silent, server, offer, tmp_path):
    offer(good(), most_bytes=100_000)
    server.answers = [Answer(silent=silent)]
    refused(tmp_path, "wanted at most 100,000")
    taken = tmp_path / "downloads" / "t.zip.part"
    assert not taken.exists() or taken.stat().st_size < 100_000 + download._CHUNK


@pytest.mark.parametrize("status", [403, 404, 410])
def test_a_file_that_is_not_there_is_asked_for_once(status, server, offer, tmp_path):
    archive = offer(good())
    server.answers = [Answer(status=status)]
    refused(tmp_path, archive.url, f"the server says {status}", f"put it in {tmp_path / 'downloads'} as t.zip")
    assert len(server.asked) == 1


def test_a_busy_server_is_asked_again(server, offer, tmp_path):
    offer(good())
    server.answers = [Answer(status=503), Answer(status=429)]
    assert sum("the server says" in line for line in fetched(tmp_path)) == 2


def test_a_file_got_in_another_way_is_used(server, offer, tmp_path):
    offer(good(), sha256=digest(good()), size=len(good()))
    (tmp_path / "downloads").mkdir()
    (tmp_path / "downloads" / "t.zip").write_bytes(good())
    fetched(tmp_path)
    assert (tmp_path / "T" / "att_splits.mat").is_file() and not server.asked


def test_without_a_network_there_is_one_sentence_and_no_waiting(offer, tmp_path, monkeypatch):
    def nobody(*_, **__):
        raise socket.gaierror(-2, "Name or service not known")

    archive = dataclasses.replace(offer(good()), url="https://data.example.org/t.zip")
    monkeypatch.setitem(DATASETS, "T", (Part(archive, MATS, ("att_splits.mat",)),))
    monkeypatch.setattr(socket, "getaddrinfo", nobody)
    monkeypatch.setattr(download.time, "sleep", pytest.fail)
    refused(tmp_path, archive.url, "Name or service not known", f"or the file in {tmp_path / 'downloads'}")


def test_a_server_that_does_not_listen_is_tried_a_few_times(server, offer, tmp_path, monkeypatch):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        archive = dataclasses.replace(offer(good()), url=f"http://127.0.0.1:{unused.getsockname()[1]}/t.zip")
    monkeypatch.setitem(DATASETS, "T", (Part(archive, MATS, ("att_splits.mat",)),))
    refused(tmp_path, "refused", "4 attempts in a row")


@pytest.mark.parametrize("url", ["http://example.org/t.zip", "ftp://example.org/t.zip", "file:///etc/t.zip", "t.zip"])
def test_nothing_but_https_leaves_this_machine(url, server, offer, tmp_path, monkeypatch):
    archive = offer(good())
    monkeypatch.setattr(socket, "getaddrinfo", pytest.fail)
    monkeypatch.setitem(DATASETS, "T", (Part(dataclasses.replace(archive, url=url), MATS, ("att_splits.mat",)),))
    refused(tmp_path, f"{url}: no https; wanted https")


@pytest.mark.parametrize("url", ["http://example.org/t.zip", "file:///etc/passwd", "ftp://example.org/t", "http://[/"])
def test_nor_does_a_redirect(url, server, offer, tmp_path):
    archive = offer(good())
    server.answers = [Answer(to=url)]
    sentence = refused(tmp_path, archive.url)
    assert "wanted https" in sentence or "the server says 302" in sentence
    assert len(server.asked) == 1 and tree(tmp_path) == set()


def test_a_redirect_does_not_leave_https_for_this_machine():
    with pytest.raises(InputError, match="^http://127.0.0.1/x: no https, and https://a.org/x leads there"):
        download._require_https("http://127.0.0.1/x", "https://a.org/x")
    download._require_https("https://b.org/x", "https://a.org/x")


def test_a_redirect_is_followed_with_what_was_asked(server, offer, tmp_path):
    offer(good())
    server.content["else.zip"] = good()
    server.answers = [Answer(cut=1000), Answer(to="/else.zip")]
    fetched(tmp_path)
    assert server.asked[-1] == ("else.zip", "bytes=1000-", '"1"')
    assert (tmp_path / "downloads" / "t.zip").read_bytes() == good()


def test_another_digest_than_the_published_one_puts_the_file_aside(server, offer, tmp_path):
    wanted = good()
    offer(wanted, sha256=digest(wanted))
    server.content["t.zip"] = other = good(b"x" * 1000)
    sentence = refused(tmp_path, f"has sha256 {digest(other)}", f"wanted {digest(wanted)}, as published")
    aside = tmp_path / "downloads" / "t.zip.wrong"
    assert str(aside) in sentence and aside.read_bytes() == other and tree(tmp_path) == {"downloads/t.zip.wrong"}
    refused(tmp_path, "in place of an earlier one")
    server.content["t.zip"] = wanted
    fetched(tmp_path)
    assert (tmp_path / "downloads" / "t.zip").read_bytes() == wanted and aside.exists()


def test_a_digest_from_first_use_holds_later_copies(server, offer, tmp_path):
    offer(good())
    fetched(tmp_path)
    for old in (tmp_path / "downloads" / "t.zip", tmp_path / "T" / "att_splits.mat"):
        old.unlink()
    server.content["t.zip"] = good(b"x" * 1000)
    refused(tmp_path, f"wanted {digest(good())}, as {tmp_path / 'downloads.json'} recorded it at first use")
    assert not (tmp_path / "T" / "att_splits.mat").exists()
    (tmp_path / "downloads.json").write_text('{"t.zip": {"sha256": 3}}')
    refused(tmp_path, "downloads.json", "{'sha256': 3}", '{"sha256": "..."}')


def test_a_whole_file_of_another_size_is_put_aside(server, offer, tmp_path):
    offer(good(), size=len(good()))
    (tmp_path / "downloads").mkdir()
    (tmp_path / "downloads" / "t.zip").write_bytes(b"half")
    refused(tmp_path, "has 4 bytes", f"wanted {len(good()):,}", "renamed to")
    fetched(tmp_path)
    assert (tmp_path / "downloads" / "t.zip.wrong").read_bytes() == b"half"


def test_a_part_that_nobody_can_tell_the_origin_of_is_not_gone_on_with(server, offer, tmp_path):
    offer(good())
    (tmp_path / "downloads").mkdir()
    (tmp_path / "downloads" / "t.zip.part").write_bytes(b"of what?")
    (tmp_path / "downloads" / "t.zip.part.json").write_text("{")
    fetched(tmp_path)
    assert [asked for _, asked, _ in server.asked] == [None]


def test_a_full_disk_is_told_before_the_download(server, offer, tmp_path, monkeypatch):
    offer(good())
    usage = download.shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(download.shutil, "disk_usage", lambda _: usage)
    refused(tmp_path, "has room for 1,000 bytes", f"wanted {len(good()):,} more")


def test_a_folder_that_cannot_be_made_is_one_sentence(offer, tmp_path):
    offer(good())
    (tmp_path / "file").write_text("")
    refused(tmp_path / "file", str(tmp_path / "file"), "wanted a writable disk with enough room")


def test_two_processes_do_not_write_the_same_file(offer, tmp_path):
    offer(good())
    (tmp_path / "downloads").mkdir()
    with atomic.locked(tmp_path / "downloads"):
        refused(tmp_path, str(tmp_path / "downloads"), "works there")
    fetched(tmp_path)


def test_an_unknown_dataset_is_one_sentence(tmp_path):
    with pytest.raises(InputError, match="^dataset: 'shapes' cannot be downloaded; wanted one of cub, sun, awa1"):
        download.fetch("shapes", tmp_path / "data")
    assert not (tmp_path / "data").exists()


def test_a_folder_that_differs_in_case_is_used_as_the_reader_does(offer, tmp_path):
    (tmp_path / "t").mkdir()
    offer(good())
    assert download.fetch("t", tmp_path, print) == tmp_path / "t"
    assert (tmp_path / "t" / "att_splits.mat").is_file() and not os.path.isdir(tmp_path / "T")


# Killed

SCRIPT = """
import importlib.machinery, os, signal, sys, types
for name in ("zslkeras", "zslkeras.benchmarks"):  # without their own imports, which take seconds
    sys.modules[name] = types.ModuleType(name)
    sys.modules[name].__path__ = [os.path.join({root!r}, *name.split("."))]
from zslkeras import atomic
from zslkeras.benchmarks import archives, download
archive = archives.Archive({url!r}, 10**7, 10**7, 1000)
archives.DATASETS["T"] = (archives.Part(archive, {take!r}, ("images",), 3),)
{more}
download.fetch("t", {data!r})
"""
DIE = """
def dies(*_, calls=[], real=download.unpack.{function}, **__):
    calls.append(1)
    if len(calls) == {call}:
        os.kill(os.getpid(), signal.SIGKILL)
    return real(*_, **__)
download.unpack.{function} = dies
"""


def start(url, data, more=""):
    script = SCRIPT.format(root=str(ROOT), url=url, take=MATS, data=str(data), more=more)
    return subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def test_a_killed_download_goes_on(server, offer, tmp_path):
    content = zipped(PICTURES)
    archive = offer(content, gives=("images",), files=3)
    server.answers = [Answer(cut=80_000, stall=60)]
    process, part = start(archive.url, tmp_path), tmp_path / "downloads" / "t.zip.part"
    give_up = time.monotonic() + 60
    while not (part.exists() and part.stat().st_size) and time.monotonic() < give_up and process.poll() is None:
        time.sleep(0.02)
    process.kill()
    process.wait()
    held = part.stat().st_size
    fetched(tmp_path)
    assert 0 < held <= 80_000 and server.asked[-1][1] == f"bytes={held}-"
    assert (tmp_path / "downloads" / "t.zip").read_bytes() == content


@pytest.mark.parametrize(("function", "call", "merged"), [("_copy", 2, False), ("os.rename", 2, True)])
def test_killed_while_unpacking_leaves_no_half_files_and_is_made_good(function, call, merged, server, offer, tmp_path):
    archive = offer(zipped(PICTURES), gives=("images",), files=3)
    if merged:  # so that images are moved one by one
        (tmp_path / "T" / "images").mkdir(parents=True)
        (tmp_path / "T" / ".unpacking-t.zip").mkdir()
    process = start(archive.url, tmp_path, DIE.format(function=function, call=call))
    assert process.wait(60) == -signal.SIGKILL
    whole = dict(PICTURES)
    there = list((tmp_path / "T").glob("images/*"))
    assert len(there) == merged
    assert all(path.read_bytes() == whole[f"a/images/{path.name}"] for path in there)
    fetched(tmp_path)
    assert len(server.asked) == 1
    assert tree(tmp_path / "T") == {f"images/{i}.jpg" for i in range(3)}
    assert [(tmp_path / "T" / "images" / f"{i}.jpg").read_bytes() for i in range(3)] == list(whole.values())


def test_what_was_moved_in_part_is_not_taken_for_all_of_it(server, offer, tmp_path):
    """Even if the next attempt fails too."""
    offer(zipped(PICTURES), gives=("images/0.jpg",), files=3)
    (tmp_path / "T" / "images").mkdir(parents=True)
    (tmp_path / "T" / "images" / "0.jpg").write_bytes(PICTURES[0][1])
    (tmp_path / "T" / ".unpacking-t.zip").mkdir()
    server.content["t.zip"] = zipped(PICTURES[:2])
    refused(tmp_path, "gives 2 wanted files")
    (tmp_path / "downloads" / "t.zip").unlink()
    server.content["t.zip"] = zipped(PICTURES)
    fetched(tmp_path)
    assert tree(tmp_path / "T") == {f"images/{i}.jpg" for i in range(3)}
