"""A real client over loopback: the dialect, the bounds, and that no request brings the server down."""

import asyncio
import base64
import concurrent.futures
import http.client
import io
import json
import re
import select
import socket
import statistics
import threading
import time

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from tests.images.test_decode import with_scans
from tests.support.commands import ROOT, start
from tests.support.exported import CLASSES
from tests.support.server import Server

serve = pytest.importorskip("zslkeras.serving.rest", reason="needs the extra [serve]")

SMALL = serve.Limits(body=2**20, rows=16, classes=50, scores=700, work=2_000_000, at_once=2, in_flight=12, seconds=20.0)


@pytest.fixture(scope="module")
def model(exported):
    return tf.saved_model.load(str(exported.saved_model))


@pytest.fixture(scope="module")
def server(model):
    return Server(model, SMALL)


@pytest.fixture(scope="module")
def contents(exported):
    return [path.read_bytes() for path in sorted(exported.pictures.glob("*/0.png"))[:3]]


def blank(height, width):
    """The bytes of a large image, which are few."""
    content = io.BytesIO()
    Image.new("1", (width, height)).save(content, "PNG")
    return content.getvalue()


def b64(content):
    return {"b64": base64.b64encode(content).decode()}


@pytest.fixture(scope="module")
def classes(exported):
    metadata = json.loads((exported.saved_model / "metadata.json").read_text())
    embeddings = np.load(exported.saved_model / "class_embeddings.npy").tolist()
    return {"class_embeddings": embeddings, "seen_mask": metadata["seen"]}


def test_rows_and_columns_get_the_same_answer(server, model, contents, classes):
    wanted = model.signatures["serve"](inputs=tf.constant(contents))
    scores, labels = wanted["scores"].numpy(), wanted["label"].numpy().tolist()
    status, rows = server.ask({"instances": [b64(one) for one in contents]})
    assert status == 200
    np.testing.assert_allclose([row["scores"] for row in rows["predictions"]], scores, rtol=1e-6)
    assert [row["label"] for row in rows["predictions"]] == labels
    status, named = server.ask({"signature_name": "serve", "instances": [{"inputs": b64(one)} for one in contents]})
    assert (status, named) == (200, rows)
    for given in ([b64(one) for one in contents], {"inputs": [b64(one) for one in contents]}):
        status, columns = server.ask({"signature_name": "serve", "inputs": given})
        assert status == 200 and columns["outputs"]["label"] == labels
        np.testing.assert_allclose(columns["outputs"]["scores"], scores, rtol=1e-6)
    request = {"signature_name": "score_classes", "inputs": {"inputs": [b64(one) for one in contents], **classes}}
    status, given = server.ask(request, "/v1/models/drawn/versions/1:predict")
    assert status == 200 and given["outputs"]["label"] == labels
    np.testing.assert_allclose(given["outputs"]["scores"], scores, rtol=1e-6)


def test_the_model_says_that_it_is_there(server):
    for path in ("/v1/models/drawn", "/v1/models/drawn/versions/1"):
        status, answer = server.ask(None, path, "GET")
        state = {"version": "1", "state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}}
        assert (status, answer) == (200, {"model_version_status": [state]})


def bad_requests(contents, classes):
    picture, inputs = b64(contents[0]), [b64(contents[0])]
    scored = lambda **changes: {  # noqa: E731
        "signature_name": "score_classes",
        "inputs": {"inputs": inputs, **classes} | changes,
    }
    return {
        "no JSON": (b"{", 400, "no JSON"),
        "deep": (b"[" * 100_000, 400, "no JSON"),
        "no object": ([1], 400, "wanted a JSON object"),
        "neither": ({"signature_name": "serve"}, 400, "instances"),
        "both": ({"inputs": [], "instances": []}, 400, "instances"),
        "unknown endpoint": ({"signature_name": "train", "instances": [picture]}, 400, "signature_name: got 'train'"),
        "other inputs": ({"inputs": {"pictures": inputs}}, 400, "got inputs 'pictures'; wanted inputs"),
        "not base64": ({"instances": [{"b64": "%%%"}]}, 400, "wanted bytes"),
        "number for bytes": ({"instances": [3]}, 400, "wanted bytes"),
        "no picture": ({"instances": [b64(b"no picture")]}, 400, "wanted the bytes of a JPEG or a PNG"),
        "half a picture": ({"instances": [b64(contents[0][:2000])]}, 400, "PNG"),
        "none": ({"instances": []}, 400, "inputs: got shape [0]"),
        "too many": ({"instances": [picture] * 17}, 400, "got 17 of them; wanted at most 16"),
        "no class": (scored(class_embeddings=[], seen_mask=[]), 400, "class_embeddings: got shape [0 0]"),
        "too many classes": (scored(class_embeddings=[[0.5] * 33] * 51, seen_mask=[True] * 51), 400, "at most 50"),
        "narrow classes": (
            scored(class_embeddings=[[0.5]], seen_mask=[True]),
            400,
            "class_embeddings: got shape [1 1]",
        ),
        "ragged": (scored(class_embeddings=[[0.5], [1, 2]], seen_mask=[True] * 2), 400, "rows of different lengths"),
        "words": (scored(class_embeddings=[["a"] * 33], seen_mask=[True]), 400, "not float32"),
        "numbers for a mask": (scored(seen_mask=[1] * CLASSES), 400, "not bool"),
        "NaN": (scored(class_embeddings=[[float("nan")] * 33], seen_mask=[True]), 400, "NaN or infinity"),
        "short mask": (scored(seen_mask=[True]), 400, "seen_mask: got 1 entries"),
        "too large": (b" " * (3 * 2**20), 413, "wanted at most"),
        "long name": ({"signature_name": "x" * 10**5, "instances": [picture]}, 400, "xxx...; wanted one of"),
        "long inputs": ({"inputs": {"x" * 10**5: 1}}, 400, "xxx...; wanted inputs"),
        "many scores": (
            scored(inputs=inputs * 16, class_embeddings=[[0.5] * 33] * 50, seen_mask=[True] * 50),
            400,
            "800",
        ),
        "a bomb": ({"instances": [b64(blank(2000, 1000))] * 2}, 400, "4,000,000 pixels to decode; wanted at most"),
        "scans": ({"instances": [b64(with_scans(90))] * 16}, 400, "2,304,000 pixels to decode"),
        "infinite": (scored(class_embeddings=[[1e38] * 33] * CLASSES), 400, "numbers that are not finite"),
    }


def test_a_bad_request_gets_one_clear_error_and_the_server_lives_on(server, contents, classes):
    for case, (request, status, sentence) in bad_requests(contents, classes).items():
        got, answer = server.ask(request)
        assert got == status, (case, answer)
        assert list(answer) == ["error"] and sentence in answer["error"], case
        assert len(answer["error"]) < 400, case
        assert "\n" not in answer["error"] and "Traceback" not in answer["error"] and str(ROOT) not in answer["error"]
    for path, method, status in (
        ("/v1/models/other:predict", "POST", 404),
        ("/v1/models/drawn/versions/2:predict", "POST", 404),
        ("/v1/models/drawn:train", "POST", 405),
        ("/etc/passwd", "GET", 404),
        ("/v1/models/drawn:predict", "DELETE", 405),
    ):
        got, answer = server.ask({}, path, method)
        assert got == status and list(answer) == ["error"], path
    assert server.ask({"instances": [b64(contents[0])]})[0] == 200


def test_a_hundred_megabytes_are_refused_and_not_kept(server, contents):
    """The server stops reading at some point; a client then sees the answer or a closed connection."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
    part = b" " * 2**20
    connection.putrequest("POST", "/v1/models/drawn:predict")
    connection.putheader("Content-Length", str(100 * len(part)))
    connection.endheaders()
    try:
        for _ in range(100):
            connection.send(part)
        assert connection.getresponse().status == 413
    except OSError:
        pass
    finally:
        connection.close()
    assert server.ask({"instances": [b64(contents[0])]})[0] == 200


def test_many_requests_of_eight_clients_are_all_answered(server, contents, record_property):
    body = json.dumps({"instances": [b64(contents[0])]})

    def client(_):
        seconds, connection = [], http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
        for _ in range(15):
            begun = time.perf_counter()
            connection.request("POST", "/v1/models/drawn:predict", body)
            response = connection.getresponse()
            assert response.status == 200, response.read()
            response.read()
            seconds.append(time.perf_counter() - begun)
        connection.close()
        return seconds

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        seconds = [one for some in pool.map(client, range(8)) for one in some]
    assert len(seconds) == 120
    record_property("p50", statistics.median(seconds))


class Slow:
    """A model whose one endpoint takes its time, as large ones do; some requests make it fail."""

    def __init__(self, seconds):
        self.signatures, self.seconds, self.release = {"serving_default": self}, seconds, threading.Event()
        self.structured_input_signature = (), {"inputs": tf.TensorSpec([None], tf.float32)}

    def __call__(self, inputs):
        if inputs[0] < 0:
            raise RuntimeError("a secret of the server")
        self.release.wait(self.seconds)
        return {"scores": inputs}


def test_slow_answers_are_given_up_and_a_crowd_is_sent_away():
    model = Slow(20)
    server = Server(model, serve.Limits(at_once=1, in_flight=2, seconds=1.0))
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(server.ask, [{"instances": [1.0]}] * 4))
    assert sorted(status for status, _ in answers) == [503, 503, 504, 504]
    assert any("no answer within 1 seconds" in answer["error"] for _, answer in answers)
    model.release.set()
    assert server.ask({"instances": [1.0]}) == (200, {"predictions": [1.0]})
    status, answer = server.ask({"instances": [-1.0]})
    assert (status, answer) == (500, {"error": "the server failed; its log says why"})


BEGUN = b"POST /v1/models/drawn:predict HTTP/1.1\r\nHost: localhost\r\n"


def sending(server, content):
    client = socket.create_connection(("127.0.0.1", server.port))
    client.settimeout(30)
    client.sendall(content)
    return client


def answer_to(client):
    """What the server answers with status 200: head and body may come one after the other."""
    content = b""
    while not content.endswith(b"]}"):
        content += client.recv(1000)
    return content


def ended(client):
    """Whether the server closes a connection."""
    try:
        return client.recv(1000) == b""
    except ConnectionResetError:
        return True


def asked_in_time(server):
    """Whether a good request is answered while something else goes on."""
    begun = time.perf_counter()
    return server.ask({"instances": [1.0]})[0] == 200 and time.perf_counter() - begun < 2


def test_a_body_that_comes_slowly_is_given_up_and_holds_no_place_until_then():
    server = Server(Slow(0), serve.Limits(in_flight=1, body_seconds=1.0, rate=1000))
    slow = [sending(server, BEGUN + b"Content-Length: 1000\r\n\r\n{") for _ in range(20)]
    assert asked_in_time(server)
    for client in slow:
        assert b"408" in client.recv(1000)
        client.close()
    steady = sending(server, BEGUN + b"Content-Length: 4020\r\n\r\n" + b'{"instances": [1.0]}')
    for _ in range(10):
        time.sleep(0.15)
        steady.sendall(b" " * 400)
    assert b"200 OK" in steady.recv(1000)


def test_large_bodies_do_not_fill_the_memory_and_small_ones_get_through():
    server = Server(Slow(0), serve.Limits(body=2**20, bodies=2**20))
    large = [sending(server, BEGUN + b"Content-Length: 600000\r\n\r\n" + b" " * 500_000) for _ in range(3)]
    assert asked_in_time(server)
    answered, _, _ = select.select(large, [], [], 5)
    assert answered and all(b"503" in client.recv(1000) for client in answered)


def test_a_head_that_never_ends_has_a_deadline():
    server = Server(Slow(0), serve.Limits(head_seconds=0.5))
    client = sending(server, BEGUN)
    assert ended(client)
    again = sending(server, BEGUN + b"Content-Length: 20\r\n\r\n" + b'{"instances": [1.0]}')
    assert b"200 OK" in answer_to(again)
    again.sendall(BEGUN)  # of a second request over the same connection
    assert ended(again)


def test_where_connections_are_many_the_oldest_unfinished_one_gives_way():
    server = Server(Slow(0), serve.Limits(connections=8))
    clients = [sending(server, BEGUN) for _ in range(30)]
    assert asked_in_time(server)
    assert ended(clients[0])
    clients[-1].sendall(b"Content-Length: 20\r\n\r\n" + b'{"instances": [1.0]}')
    assert b"200 OK" in clients[-1].recv(1000)


def test_names_of_other_machines_are_refused():
    """A page of another site may have its name answered with our address, and would then read what we say."""
    server = Server(Slow(0), serve.Limits(), known_as=("Birds.local",))
    for host, status in (
        ("localhost:8501", 200),
        ("127.0.0.1", 200),
        ("[::1]:80", 200),
        ("birds.local", 200),
        ("evil.example:8501", 421),
        ("localhost.evil.example", 421),
    ):
        got, answer = server.ask(None, "/v1/models/drawn", "GET", host)
        assert got == status, (host, answer)
    assert "Host: got localhost.evil.example; wanted an address or a name of this machine" in answer["error"]


def test_a_client_that_hangs_up_is_no_failure_of_the_server():
    scope = {"type": "http", "method": "POST", "path": "/v1/models/drawn:predict", "headers": [], "query_string": b""}
    sent = []

    async def receive():
        return {"type": "http.disconnect"}

    async def send(message):
        sent.append(message)

    asyncio.run(serve.app_of(Slow(0), "drawn")(scope, receive, send))  # what it raised would stand in the log
    assert sent[0]["status"] == 400


def test_the_command_serves_this_machine_alone(exported, contents, tmp_path):
    process = start("zslkeras", "serve", "--model", exported.run, "--port", "0", cwd=tmp_path)
    try:
        line = process.stdout.readline()
        assert re.fullmatch(r"serving http://127\.0\.0\.1:\d+/v1/models/eszsl:predict\n", line), process.stderr.read()
        port = int(re.search(r":(\d+)/", line)[1])
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        connection.request("POST", "/v1/models/eszsl:predict", json.dumps({"instances": [b64(contents[0])]}))
        response = connection.getresponse()
        assert response.status == 200 and "label" in json.loads(response.read())["predictions"][0]
    finally:
        process.terminate()
        process.wait_for(60)


def test_the_image_of_tensorflow_serving_wants_what_an_export_is(exported):
    """The image is not built here (that needs a Docker engine)."""
    dockerfile = (ROOT / "docker/serving/Dockerfile").read_text()
    (copied,) = re.findall(r"^COPY (\S+) /models/(\w+)/1$", dockerfile, re.M)
    assert (exported.run / copied[0] / "saved_model.pb").exists()
    assert f"MODEL_NAME={copied[1]}" in dockerfile
    compose = (ROOT / "docker/serving/compose.yaml").read_text()
    assert re.search(r"image: (\S+)", compose)[1] == re.search(r"^FROM (\S+)", dockerfile, re.M)[1]
    assert f":/models/{copied[1]}/1:ro" in compose and '"127.0.0.1:8501:8501"' in compose
