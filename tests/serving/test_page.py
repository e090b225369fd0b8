"""The page over HTTP: its files and headers, what it is told of the model, and the rows of classes that it asks for."""

import dataclasses
import io
import json
import re
import types

import numpy as np
import pytest
from PIL import Image

from tests.support.commands import ROOT, start
from tests.support.exported import write_table
from tests.support.server import Server
from tests.support.words import Bag
from zslkeras.benchmarks import shapes
from zslkeras.benchmarks.words import beside
from zslkeras.errors import InputError
from zslkeras.serving import answer_file, candidates, recognise
from zslkeras.text import descriptions, encoders

page = pytest.importorskip("zslkeras.serving.page", reason="needs the extra [serve]")
rest = pytest.importorskip("zslkeras.serving.rest", reason="needs the extra [serve]")

STATIC = {
    path.name: path for path in (ROOT / "zslkeras/serving/page").iterdir() if path.suffix in (".html", ".css", ".js")
}
SVG = "http://www.w3.org/2000/svg"  # the name of a language, which nobody asks for
WEIGHT = 200_000  # bytes of all files together


class Other(Bag):
    name, digest = "other", "another"


@pytest.fixture(scope="module")
def opened(exported):
    return recognise.Exported(exported.saved_model)


@pytest.fixture(scope="module")
def server(opened):
    return Server(opened.model, rest.Limits(), page=page.Page(opened, "drawn"))


def test_the_page_is_its_files_and_each_says_that_nothing_else_may_run(server):
    assert "page.js" in STATIC and sum(path.stat().st_size for path in STATIC.values()) < WEIGHT
    kinds = {".html": "text/html", ".css": "text/css", ".js": "text/javascript"}
    for path, file in {"/": STATIC["index.html"], **{f"/page/{name}": one for name, one in STATIC.items()}}.items():
        status, headers, content = server.fetch(None, path)
        assert (status, content) == (200, file.read_bytes()), path
        assert headers["content-type"].startswith(kinds[file.suffix]), path
        assert headers["x-content-type-options"] == "nosniff", path
        policy = dict(part.split(" ", 1) for part in headers["content-security-policy"].split("; "))
        assert policy["default-src"] == "'none'", path
        assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'", path
        assert policy["img-src"] == "'self' blob: data:" and "unsafe" not in headers["content-security-policy"], path
    for path in ("/page/__init__.py", "/page/..%2frest.py", "/page/other.js"):
        assert server.ask(None, path, "GET")[0] == 404, path
    assert server.ask({"instances": []}, "/")[0] == 405


def test_the_files_have_no_inline_code_and_name_no_other_machine():
    for name, file in STATIC.items():
        text = file.read_text()
        assert set(re.findall(r"https?://[^\s\"']+", text)) <= {SVG}, name
        assert "innerHTML" not in text and "eval(" not in text, name
    html = STATIC["index.html"].read_text()
    assert not re.search(r"<style|\sstyle=|\son\w+=", html)
    assert all("src=" in tag for tag in re.findall(r"<script[^>]*>", html))
    for name, file in STATIC.items():
        for module in re.findall(r'from "\./([^"]+)"', file.read_text()):
            assert module in STATIC, (name, module)


def test_ids_that_scripts_look_for_are_in_the_page():
    there = set(re.findall(r'\bid="([^"]+)"', STATIC["index.html"].read_text()))
    asked = {name for file in STATIC.values() for name in re.findall(r'find\("([^"]+)"\)', file.read_text())}
    assert asked and asked <= there


def test_the_page_is_told_what_the_model_is(server, opened):
    status, headers, content = server.fetch(None, "/page/model.json")
    assert status == 200 and headers["content-type"] == "application/json"
    told, classes = json.loads(content), opened.classes
    assert (told["name"], told["method"]) == ("drawn", "eszsl")
    assert told["classes"] == list(classes.names) and told["seen"] == classes.seen.tolist()
    assert told["attributes"] == opened.attribute_names and told["gamma"] == opened.metadata["gamma"]
    np.testing.assert_array_equal(np.float32(told["class_embeddings"]), classes.embeddings)
    assert told["crop"] is False  # the filter bank squeezes the whole image
    assert told["attention"] == {}
    assert told["limits"] | {"body": rest.Limits().body, "classes": rest.Limits().classes} == told["limits"]


def test_it_is_told_what_gamma_does_to_validation_rows(server, opened):
    _, told = server.ask(None, "/page/model.json", "GET")
    sure, gammas = opened.confidence, np.linspace(*told["gammas"], len(told["curve"]["U"]))
    assert told["gammas"] == [0, 3 * opened.metadata["gamma"]]
    for place in (0, 100, 300):
        answers = (sure.scores + gammas[place] * ~sure.seen).argmax(axis=1)
        for name, classes in (("U", ~sure.seen), ("S", sure.seen)):
            shares = [np.mean(answers[sure.labels == one] == one) for one in np.flatnonzero(classes)]
            assert told["curve"][name][place] == pytest.approx(np.mean(shares), abs=1e-9), (name, place)
    assert told["curve"]["U"][0] < told["curve"]["U"][300]


def test_it_is_told_where_the_model_looks(opened):
    outputs = dict.fromkeys(("class", "class_scores", "attribute", "attribute_scores", "lone"), ["float32", []])
    endpoints = opened.metadata["endpoints"] | {"attention": {"inputs": {}, "outputs": outputs}}
    looking = types.SimpleNamespace(
        require_images=lambda: None,
        classes=opened.classes,
        metadata=opened.metadata | {"endpoints": endpoints},
        confidence=None,
    )
    server = Server(opened.model, rest.Limits(), page=page.Page(looking, "drawn"))
    _, told = server.ask(None, "/page/model.json", "GET")
    assert told["attention"] == {"class": "classes", "attribute": "attributes"}
    assert told["curve"] is None  # of an export by an earlier version


def test_described_classes_get_the_rows_that_commands_and_python_would_give_them(server, opened):
    given = {"red star": {"red": 1.0, "star": 0.5}, opened.classes.names[0]: {"blue": 1.0}}
    wanted, notes = candidates.among(opened.classes, opened.metadata["attributes"], given, known=False)
    status, answer = server.ask({"classes": given}, "/page/classes")
    assert status == 200 and answer["notes"] == notes
    assert [one["name"] for one in answer["classes"]] == list(given)
    assert [one["seen"] for one in answer["classes"]] == wanted.seen.tolist() == [False, bool(opened.classes.seen[0])]
    np.testing.assert_array_equal(np.float32([one["row"] for one in answer["classes"]]), wanted.embeddings)


def test_pasted_lines_are_read_with_a_header_and_without(server, opened, tmp_path):
    table = write_table(tmp_path / "table.csv", [30, 31])
    wanted, _ = candidates.among(opened.classes, opened.metadata["attributes"], table, known=False)
    lines = table.read_text().splitlines()
    for text in ("\n".join(lines), "\n".join(lines[1:]), "\r\n".join(lines[1:]).replace(",", "\t"), lines[1] + "\n"):
        status, answer = server.ask({"table": text}, "/page/classes")
        assert status == 200, answer
        number = len(answer["classes"])
        assert [one["name"] for one in answer["classes"]] == list(wanted.names)[:number]
        rows = np.float32([one["row"] for one in answer["classes"]])
        np.testing.assert_array_equal(rows, wanted.embeddings[:number])
    some = f'class;{shapes.ATTRIBUTES[0]};{shapes.ATTRIBUTES[1]}\n"half; a class";1;\n'
    status, answer = server.ask({"table": some}, "/page/classes")
    assert status == 200 and answer["classes"][0]["name"] == "half; a class"
    assert "filled in 32 of 33 attributes" in answer["notes"][0]


def test_words_become_classes_where_there_is_an_encoder(opened, monkeypatch):
    monkeypatch.setattr(encoders, "load", lambda name: {"bag": Bag}[name]())
    server = Server(opened.model, rest.Limits(), page=page.Page(opened, "drawn", "bag"))
    assert server.ask(None, "/page/model.json", "GET")[1]["words"] is True
    said = {"okapi": "a blue striped circle. it is large"}
    status, answer = server.ask({"words": said}, "/page/classes")
    assert status == 200, answer
    wanted, notes = candidates.among(
        opened.classes, opened.metadata["attributes"], said, known=False, text_encoder="bag"
    )
    assert answer["notes"] == notes and answer["classes"][0]["name"] == "okapi"
    np.testing.assert_array_equal(np.float32([one["row"] for one in answer["classes"]]), wanted.embeddings)
    status, answer = server.ask({"words": {"okapi": " "}}, "/page/classes")
    assert status == 400 and "the description of class okapi is empty" in answer["error"]
    for words in ({"okapi": "a" * 2_001}, {str(number): "an animal" for number in range(21)}):
        status, answer = server.ask({"words": words}, "/page/classes")
        assert status == 400 and "words: wanted at most 20 classes per request, with 2,000 letters" in answer["error"]


def test_text_beside_attributes_is_kept(opened, monkeypatch):
    monkeypatch.setattr(encoders, "load", lambda name: {"bag": Bag}[name]())
    own, said = opened.classes, tuple((f"a {name.replace('-', ' ')}",) for name in opened.classes.names)
    text = descriptions.embedded(Bag(), said)
    known = {"encoder": "bag", "digest": Bag.digest, "embedding": "both", "by_name": False, "said": said}
    known |= {"weight": 0.5, "attributes": len(shapes.ATTRIBUTES)}
    names = [*shapes.ATTRIBUTES, *(f"text {place}" for place in range(1, Bag.dim + 1))]
    facts = {**opened.metadata["attributes"], "words": known, "names": names, "number": len(names)}
    of_both = types.SimpleNamespace(
        require_images=lambda: None,
        classes=dataclasses.replace(own, embeddings=beside(own.embeddings, text, 0.5)),
        metadata={**opened.metadata, "attributes": facts},
    )
    shown = page.Page(of_both, "drawn")

    def asked(given):
        (found,) = json.loads(shown.described(json.dumps(given).encode()))["classes"]
        return found

    row, okapi = dict(zip(shapes.ATTRIBUTES, own.embeddings[3].tolist(), strict=True)), "a blue striped circle"
    wanted = beside(own.embeddings[[3]], descriptions.embedded(Bag(), [okapi]), 0.5)
    for given in ({"classes": {"okapi": {**row, "description": okapi}}}, {"table": _csv("okapi", row, okapi)}):
        found = asked(given)
        assert found["said"] == okapi
        np.testing.assert_allclose([found["row"]], wanted, atol=1e-6)
    with pytest.raises(InputError, match="class okapi is not described in words"):
        asked({"classes": {"okapi": row}})
    found = asked({"classes": {own.names[3]: row}})  # it keeps its own text
    np.testing.assert_allclose([found["row"]], of_both.classes.embeddings[[3]], atol=1e-6)
    known["encoder"] = "hf://bag"
    shown = page.Page(of_both, "drawn")
    with pytest.raises(InputError, match="words: this server has no encoder; wanted one, as a class has text"):
        asked({"classes": {own.names[3]: row}})


def _csv(name, row, description):
    return f"class,{','.join(row)},description\n{name},{','.join(map(str, row.values()))},{description}\n"


def test_the_encoder_of_the_training_is_taken_if_it_is_still_there(opened, monkeypatch):
    known = {"encoder": "bag", "digest": Bag.digest, "embedding": "attributes", "by_name": False, "said": []}
    facts = {**opened.metadata, "attributes": {**opened.metadata["attributes"], "words": known}}
    of_words = types.SimpleNamespace(require_images=lambda: None, classes=opened.classes, metadata=facts)
    found = {"bag": Bag}

    def load(name):
        if name not in found:
            raise InputError(f"text_encoder: no folder {name}; wanted one of a sentence encoder")
        return found[name]()

    monkeypatch.setattr(encoders, "load", load)
    assert page.Page(of_words, "drawn")._encoder == "bag"
    found["bag"], found["other"] = Other, Other
    assert page.Page(of_words, "drawn")._encoder is None
    with pytest.raises(InputError, match="text_encoder: other has digest another; wanted .* of bag, with"):
        page.Page(of_words, "drawn", "other")
    fetched = {**facts, "attributes": {**facts["attributes"], "words": known | {"encoder": "hf://bag"}}}
    found["hf://bag"] = Bag
    of_handle = types.SimpleNamespace(require_images=lambda: None, classes=opened.classes, metadata=fetched)
    assert page.Page(of_handle, "drawn")._encoder is None  # nobody asked to fetch it
    assert page.Page(of_handle, "drawn", "hf://bag")._encoder == "bag"
    del found["bag"]
    assert page.Page(of_words, "drawn")._encoder is None
    with pytest.raises(InputError, match="text_encoder: no folder nowhere"):
        page.Page(of_words, "drawn", "nowhere")


def test_a_gallery_shows_some_images_of_a_folder(opened, exported, tmp_path):
    images = answer_file.images_in([exported.pictures])
    server = Server(opened.model, rest.Limits(), page=page.Page(opened, "drawn", gallery=images))
    _, told = server.ask(None, "/page/model.json", "GET")
    assert len(told["gallery"]) == page.SHOWN < len(images)
    status, headers, content = server.fetch(None, "/page/gallery/0")
    assert (status, headers["content-type"], content) == (200, "image/png", images[0].read_bytes())
    assert server.fetch(None, f"/page/gallery/{page.SHOWN - 1}")[2] == images[-1].read_bytes()
    for number in (page.SHOWN, -1):
        assert server.fetch(None, f"/page/gallery/{number}")[0] == 404
    (tmp_path / "a.png").write_bytes(b"no image")
    with pytest.raises(InputError, match="a.png: cannot be read"):
        page.Page(opened, "drawn", gallery=[tmp_path / "a.png"])
    Image.new("RGB", (3000, 1500), "red").save(tmp_path / "large.bmp")
    (large,) = page.Page(opened, "drawn", gallery=[tmp_path / "large.bmp"])._gallery
    shown = Image.open(io.BytesIO(large[1]))
    assert large[0] == "large.bmp" and (shown.format, shown.size) == ("JPEG", (1024, 512))


def test_what_cannot_be_a_class_gets_one_sentence(server, opened):
    zero = dict.fromkeys(opened.attribute_names, 0)
    for request, sentence in (
        (b"{", "body: got no JSON"),
        ([], 'one of "classes", "table" and "words"'),
        ({"classes": {}, "table": ""}, 'one of "classes", "table" and "words"'),
        ({"words": {"okapi": "a brown animal"}}, "words: this server has no encoder for them"),
        ({"words": {"okapi": {"red": 1}}}, "words: wanted an object {name: a text}"),
        ({"classes": {}}, "classes: got none"),
        ({"classes": {"a": [1]}}, "classes: wanted an object"),
        ({"classes": {"a": {"redd": 1}}}, "no attribute 'redd'; did you mean red"),
        ({"classes": {"a": {"red": "much" * 10**5}}}, "wanted a number, or null"),
        (b'{"classes": {"a": {"red": 1e999}}}', "got inf for an attribute"),
        ({"classes": {"a": {"red": 10**400}}}, "wanted a number, or null"),
        ({"classes": {"a": {"red": None}}}, "no attribute of class a is given"),
        ({"classes": {"a": zero}}, "all attributes of class a are 0"),
        ({"classes": {"a" * 201: {"red": 1}}}, "wanted 1 to 200 letters"),
        ({"classes": {"a": {"r" * 10**6: 1}}}, "wanted 1 to 200 letters"),
        ({"classes": {str(n): {"red": 1} for n in range(201)}}, "got 201 of them; wanted at most 200"),
        ({"table": "  \n"}, "table: got nothing"),
        ({"table": "a,1,2"}, "table: line 2: 3 cells; wanted 34"),
        ({"table": 'class,red\n"a,1'}, "table: cannot be read"),
        ({"table": 7}, "table: got nothing"),
    ):
        status, answer = server.ask(request, "/page/classes")
        assert status == 400 and sentence in answer["error"], (request if len(str(request)) < 99 else "", answer)
        assert len(answer["error"]) < 400
    assert server.ask({"classes": {"a": {"red": 1}}}, "/page/classes", host="evil.example")[0] == 421


def test_without_page_there_is_none(opened):
    server = Server(opened.model, rest.Limits())
    for path in ("/", "/page/page.js", "/page/model.json"):
        assert server.ask(None, path, "GET")[0] == 404, path
    assert server.ask({"classes": {"a": {"red": 1}}}, "/page/classes")[0] == 404


def test_an_export_that_takes_no_images_has_no_page(exported, tmp_path):
    folder = tmp_path / "saved_model"
    folder.mkdir()
    for path in exported.saved_model.iterdir():
        (folder / path.name).symlink_to(path)
    facts = json.loads((folder / "metadata.json").read_text())
    (folder / "metadata.json").unlink()
    (folder / "metadata.json").write_text(json.dumps(facts | {"inputs": {"kind": "features", "shape": [8]}}))
    with pytest.raises(InputError, match="takes features, not images"):
        page.Page(recognise.Exported(folder), "drawn")


def test_the_command_says_where_its_page_is(exported, tmp_path):
    process = start("zslkeras", "serve", "--model", exported.run, "--port", "0", "--page", cwd=tmp_path)
    try:
        lines = [process.stdout.readline() for _ in range(2)]
        served = re.fullmatch(r"serving (http://127\.0\.0\.1:\d+/)v1/models/eszsl:predict\n", lines[0])
        assert served and lines[1] == f"page {served[1]}\n", process.stderr.read()
    finally:
        process.terminate()
        process.wait_for(60)
