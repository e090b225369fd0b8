"""The page in Chromium: what somebody does who tries a model.

It needs the extra [browser], and a Chromium of the system: Playwright downloads none here.
"""

import base64
import csv
import io
import shutil

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from tests.support.server import Server
from tests.support.words import Bag
from zslkeras.serving import recognise
from zslkeras.text import encoders

playwright = pytest.importorskip("playwright.sync_api", reason="needs the extra [browser]")
page = pytest.importorskip("zslkeras.serving.page", reason="needs the extra [serve]")
rest = pytest.importorskip("zslkeras.serving.rest", reason="needs the extra [serve]")

NAMES = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")
PROGRAM = next(filter(None, map(shutil.which, NAMES)), None)
pytestmark = pytest.mark.skipif(PROGRAM is None, reason=f"needs one of {', '.join(NAMES)}")
HOSTILE = "<img src=x onerror=\"document.title='taken'\">"
PLACES = 4  # of a map of attention, in height and in width


class Looking:
    """The model of an export, which also looks somewhere: at place A of a map for attribute number A."""

    def __init__(self, model, attributes):
        self.signatures = {**model.signatures, "attention": self}
        self.structured_input_signature = (), {"inputs": tf.TensorSpec([None], tf.string)}
        self.maps = tf.reshape(tf.one_hot(tf.range(attributes) % PLACES**2, PLACES**2), [1, attributes, PLACES, PLACES])

    def __call__(self, inputs):
        return {"attribute": self.maps, "attribute_scores": tf.range(self.maps.shape[1], dtype=tf.float32)[None]}


@pytest.fixture(scope="module")
def opened(exported):
    found = recognise.Exported(exported.saved_model)
    outputs = {"attribute": ["float32", []], "attribute_scores": ["float32", []]}
    found.metadata["endpoints"]["attention"] = {"inputs": {}, "outputs": outputs}
    return found


@pytest.fixture(scope="module")
def server(opened, exported):
    model = Looking(opened.model, len(opened.attribute_names))
    images = sorted(exported.pictures.glob("*/0.png"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(encoders, "load", lambda name: Bag())
        yield Server(model, rest.Limits(), page=page.Page(opened, "drawn", "bag", images))


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as started:
        launched = started.chromium.launch(executable_path=PROGRAM, args=["--no-sandbox"])
        yield launched
        launched.close()


@pytest.fixture
def said():
    """The errors in the console: none that a test does not take out."""
    return []


@pytest.fixture
def tab(browser, server, said):
    """The page, opened. It asks nobody but its server."""
    opened, strangers = browser.new_page(), []
    opened.on("console", lambda message: said.append(message.text) if message.type == "error" else None)
    opened.on("pageerror", lambda error: said.append(str(error)))
    opened.on("request", lambda request: strangers.append(request.url))
    opened.goto(f"http://127.0.0.1:{server.port}/")
    opened.wait_for_selector("#list li")
    yield opened
    assert not said
    local = (f"http://127.0.0.1:{server.port}/", f"blob:http://127.0.0.1:{server.port}/", "data:")
    assert all(url.startswith(local) for url in strangers), strangers
    opened.close()


def until(tab, condition):
    """Waits for a condition. Playwright's own waiting for functions is refused by the page's policy."""
    for _ in range(500):
        if condition():
            return
        tab.wait_for_timeout(20)
    raise AssertionError("it did not come about in 10 seconds")


def choose(tab, *paths):
    tab.set_input_files("#files", [str(path) for path in paths])
    answers = tab.locator("#thumbnails .thumbnail span").all_inner_texts
    until(tab, lambda: len(answers()) == len(paths) and all(answers()))


def ranking(tab):
    """[(name, mark, score)] as they are shown."""
    lines = tab.locator("#ranking li").all()
    return [tuple(line.locator(f".{part}").inner_text() for part in ("name", "mark", "score")) for line in lines]


def slider(tab, attribute, value):
    tab.locator(".slider", has_text=attribute).first.locator("input[type=range]").fill(str(value))


def saved(tab, button):
    with tab.expect_download() as waiting:
        tab.click(button)
    return open(waiting.value.path(), newline="").read()


def test_an_image_gets_the_answer_that_python_gives(tab, opened, exported):
    path = sorted(exported.pictures.glob("*/0.png"))[5]
    (wanted,) = opened.recognise([path], top=8)
    choose(tab, path)
    marks = {True: "trained", False: "never trained"}
    shown = [(one["class"], marks[one["trained"]], f"{one['score']:.3f}") for one in wanted["top"]]
    assert ranking(tab) == shown
    widths = [box["width"] for box in (bar.bounding_box() for bar in tab.locator(".bar").all())]
    assert widths == sorted(widths, reverse=True) and widths[0] > widths[-1]


DROPPED = """([name, type, content]) => {
  const dropped = new DataTransfer();
  dropped.items.add(new File([Uint8Array.from(atob(content), (one) => one.charCodeAt(0))], name, { type }));
  return dropped;
}"""


def drop(tab, name, kind, content):
    dropped = tab.evaluate_handle(DROPPED, [name, kind, base64.b64encode(content).decode()])
    tab.dispatch_event("main", "drop", {"dataTransfer": dropped})


def test_images_are_dropped_and_other_formats_become_what_the_server_reads(tab, exported):
    path = sorted(exported.pictures.glob("*/0.png"))[5]
    drop(tab, "a.png", "image/png", path.read_bytes())
    until(tab, lambda: ranking(tab))
    answer, webp = ranking(tab), io.BytesIO()
    Image.open(path).save(webp, "WEBP", lossless=True)
    drop(tab, "b.webp", "image/webp", webp.getvalue())
    until(tab, lambda: tab.locator("#thumbnails .thumbnail span").all_inner_texts() == [answer[0][0]] * 2)
    assert ranking(tab) == answer
    drop(tab, "c.txt", "text/plain", b"no image")
    until(tab, lambda: tab.inner_text("#status") == "c.txt is not an image that this browser can read.")
    assert tab.locator("#thumbnails .thumbnail").count() == 2


def test_a_class_that_is_described_by_sliders_wins_its_image(tab, opened, exported):
    """The class of an image is left out, and described anew from nothing."""
    name = opened.classes.names[8]
    row = opened.classes.embeddings[8]
    choose(tab, exported.pictures / name / "0.png")
    assert ranking(tab)[0][0] == name
    tab.get_by_label(f"{name} can be the answer").uncheck()
    until(tab, lambda: ranking(tab)[0][0] != name)
    tab.fill("#name", HOSTILE)
    tab.click("#add button")
    for attribute, value in zip(opened.attribute_names, row, strict=True):
        if value:
            slider(tab, attribute, float(value))
    until(tab, lambda: ranking(tab)[0][0] == HOSTILE)
    assert ranking(tab)[0][1] == "never trained" and tab.title() == "drawn · zslkeras"
    table = list(csv.reader(io.StringIO(saved(tab, "#csv"))))
    assert table[0] == ["class", *opened.attribute_names]
    rows = {line[0]: np.float32(line[1:]) for line in table[1:]}
    assert set(rows) == {*opened.classes.names, HOSTILE} - {name}
    np.testing.assert_array_equal(rows[opened.classes.names[0]], opened.classes.embeddings[0])
    tab.click("#undo")
    until(tab, lambda: HOSTILE not in tab.inner_text("#ranking"))


def test_a_class_like_another_follows_what_is_changed(tab, opened, exported):
    name = opened.classes.names[8]
    choose(tab, exported.pictures / name / "0.png")
    tab.fill("#name", "another")
    tab.select_option("#like", name)
    tab.click("#add button")
    scores = lambda: {shown: float(score) for shown, _, score in ranking(tab)}  # noqa: E731
    until(tab, lambda: "another" in scores())
    assert scores()["another"] == pytest.approx(scores()[name] + opened.metadata["gamma"], abs=2e-3)
    before = scores()["another"]
    (place, *_) = np.flatnonzero(opened.classes.embeddings[8])
    slider(tab, opened.attribute_names[place], 0)
    until(tab, lambda: scores()["another"] != before)


def test_gamma_moves_the_classes_that_were_never_trained_alone(tab, opened, exported):
    choose(tab, exported.pictures / opened.classes.names[0] / "0.png")
    assert not opened.classes.seen[0]
    before = {name: (mark, float(score)) for name, mark, score in ranking(tab)}
    said = tab.inner_text("#validation-text")
    tab.locator("#gamma").fill("0")
    assert tab.inner_text("#validation-text") != said
    after = {name: float(score) for name, _, score in ranking(tab)}
    for name in before.keys() & after.keys():
        mark, score = before[name]
        moved = opened.metadata["gamma"] if mark == "never trained" else 0
        assert after[name] == pytest.approx(score - moved, abs=2e-3), name
    assert any(mark == "never trained" for mark, _ in before.values())
    tab.click("#gamma-reset")
    assert {name: (mark, float(score)) for name, mark, score in ranking(tab)} == before


def test_the_overlay_follows_the_attribute_that_is_pointed_at(tab, opened, exported):
    choose(tab, exported.pictures / opened.classes.names[3] / "0.png")
    tab.wait_for_selector("#attention:not([hidden])")
    tab.click(f"#list button >> text={opened.classes.names[3]}")
    pixels = (
        "document.getElementById('overlay').getContext('2d').getImageData(0, 0, 4, 4).data.filter((_, i) => i % 4 == 3)"
    )
    for place in (2, 7):
        tab.locator(".slider", has_text=opened.attribute_names[place]).first.hover()
        alphas = tab.evaluate(f"[...{pixels}]")
        assert np.flatnonzero(alphas).tolist() == [place]
        assert opened.attribute_names[place].split("::")[-1] in tab.inner_text("#pointed")
    tab.click("#close")
    assert tab.locator("#overlay").is_hidden()


def test_the_request_is_the_one_that_curl_sends(tab, server, opened, exported):
    choose(tab, exported.pictures / opened.classes.names[3] / "0.png")
    tab.click("text=The same request by curl")
    status, answer = server.ask(saved(tab, "#request").encode())
    assert status == 200
    label = answer["outputs"]["label"][0]
    assert opened.classes.names[label] == ranking(tab)[0][0]
    assert f"{server.port}/v1/models/drawn:predict" in tab.inner_text("#curl")


def test_pasted_lines_become_classes_and_wrong_ones_a_sentence(tab, said):
    tab.click("text=Paste lines of a table")
    tab.fill("#pasted", "class,red,star\npasted,1,0.5\n")
    tab.click("#paste button")
    tab.wait_for_selector("#list button >> text=pasted")
    assert "filled in" in tab.inner_text("#status")
    tab.fill("#pasted", "class,redd\nwrong,1\n")
    tab.click("#paste button")
    until(tab, lambda: "no attribute 'redd'" in tab.inner_text("#status"))
    assert "400" in said.pop()


def test_an_image_of_the_gallery_is_recognised(tab, opened, exported):
    tab.click("text=Images to try")
    tab.locator("#gallery button").nth(1).click()
    until(tab, lambda: ranking(tab))
    (wanted,) = opened.recognise([sorted(exported.pictures.glob("*/0.png"))[1]])
    assert ranking(tab)[0][0] == wanted["class"]


def test_a_class_in_words_joins_the_others(tab, opened, exported):
    choose(tab, exported.pictures / opened.classes.names[3] / "0.png")
    tab.click("text=Describe a class in words")
    tab.fill("#told-name", "okapi")
    tab.fill("#told", "a blue striped circle. it is large")
    tab.click("#tell button")
    tab.wait_for_selector("#list button >> text=okapi")
    assert "follow from what is said" in tab.inner_text("#status")
    assert tab.input_value("#told") == ""


def test_it_works_by_keyboard_and_fits_a_phone(tab, opened, exported):
    choose(tab, *(exported.pictures / opened.classes.names[place] / "0.png" for place in (3, 9)))
    assert opened.classes.names[9] in tab.inner_text("#brief")
    tab.locator("#thumbnails .thumbnail").first.press("Enter")
    assert ranking(tab)[0][0] == opened.classes.names[3]
    assert tab.locator("#thumbnails .thumbnail").first.evaluate("button => button === document.activeElement")
    tab.set_viewport_size({"width": 360, "height": 740})
    assert tab.evaluate("document.documentElement.scrollWidth") <= 360
    assert opened.classes.names[3] in tab.inner_text("#brief")
    tab.focus("#name")
    tab.keyboard.type("typed")
    tab.keyboard.press("Enter")
    assert tab.inner_text("#edited").startswith("typed")
    slider(tab, opened.attribute_names[0], 0.5)
    tab.locator(".slider input[type=range]").first.press("ArrowRight")
    until(tab, lambda: "typed" in tab.inner_text("#ranking"))
