"""`python -m tests.campaigns.attacks [REQUESTS] [CLIENTS] [SECONDS]`: a server of its own is crowded and attacked.

First many clients send good and bad requests at once. Then each attack goes on for some seconds, while one good
request after another asks for its answer.
"""

import base64
import collections
import concurrent.futures
import contextlib
import http.client
import io
import json
import pathlib
import re
import socket
import sys
import tempfile
import threading
import time

from PIL import Image

from tests.images.test_decode import with_scans
from tests.support import commands
from tests.support.exported import export_drawn
from zslkeras.cli import quiet

_PATH = "/v1/models/eszsl:predict"
_HEAD = f"POST {_PATH} HTTP/1.1\r\nHost: localhost\r\n".encode()
_WITHIN = 2  # seconds for a good request under attack
_AT_ONCE = 300  # connections of an attack


class Server:
    """`zslkeras serve` in a process of its own."""

    def __init__(self, folder):
        drawn = export_drawn(folder / "drawn")
        self.image = next(drawn.pictures.glob("*/0.png")).read_bytes()
        self.process = commands.start("zslkeras", "serve", "--model", drawn.run, "--port", "0", cwd=folder)
        self.port = int(re.search(r":(\d+)/", self.process.stdout.readline())[1])
        # Of some images libjpeg says much; a pipe that nobody reads would fill, and the server wait for ever.
        threading.Thread(target=lambda: collections.deque(self.process.stderr, 0), daemon=True).start()

    def ask(self, body):
        """(status, seconds) of one request; status 0 if the server hangs up."""
        begun, connection = time.monotonic(), http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request("POST", _PATH, body)
            response = connection.getresponse()
            response.read()
            return response.status, time.monotonic() - begun
        except OSError:
            return 0, time.monotonic() - begun
        finally:
            connection.close()

    def memory(self):
        """Megabytes of its own."""
        status = pathlib.Path(f"/proc/{self.process.pid}/status").read_text()
        said = re.search(r"RssAnon:\s+(\d+)", status)
        return int(said[1]) / 1e3 if said else float("nan")  # it has died

    @property
    def lives(self):
        return self.process.poll() is None

    def close(self):
        self.process.terminate()
        self.process.wait(60)


def asked(*images):
    return json.dumps({"instances": [{"b64": base64.b64encode(image).decode()} for image in images]}).encode()


def crowd(server, requests, clients):
    """Good and bad requests of many clients; returns the answers that should not have been."""
    kinds = [(asked(server.image), (200, 503)), (b"{", (400, 503)), (asked(b"no image"), (400, 503))]
    kinds += [(asked(server.image[:2000]), (400, 503)), (b'{"signature_name": "train", "instances": [1]}', (400, 503))]

    def client(number):
        body, allowed = kinds[number % len(kinds)]
        status, _ = server.ask(body)
        return None if status in allowed else status

    with concurrent.futures.ThreadPoolExecutor(clients) as pool:
        return [status for status in pool.map(client, range(requests)) if status is not None]


def _held(server, begin, more, stop):
    """Connections that send a beginning and then a little more ten times a second, always as many."""
    clients = []
    while not stop.wait(0.1):
        for _ in range(_AT_ONCE - len(clients)):
            with contextlib.suppress(OSError):
                clients.append(socket.create_connection(("127.0.0.1", server.port), timeout=5))
                clients[-1].sendall(begin)
        for client in list(clients):
            try:
                client.sendall(more)
            except OSError:
                clients.remove(client)
    for client in clients:
        client.close()


def _repeated(server, body, stop):
    """Four clients that send the same request again and again."""

    def client(_):
        while not stop.is_set():
            server.ask(body)

    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        list(pool.map(client, range(4)))


def _hung_up(server, stop):
    """Clients that go away in the middle of a request."""
    while not stop.wait(0.005):
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", server.port), timeout=5) as client:
            client.sendall(_HEAD + b"Content-Length: 1000\r\n\r\n{")


def bomb():
    """A small PNG of 30,000 x 30,000 pixels."""
    content = io.BytesIO()
    Image.new("1", (30_000, 30_000)).save(content, "PNG")
    return content.getvalue()


ATTACKS = {
    "heads that never end": lambda server, stop: _held(server, _HEAD, b"X-More: x\r\n", stop),
    "bodies that never end": lambda server, stop: _held(server, _HEAD + b"Content-Length: 1000000\r\n\r\n", b" ", stop),
    "images of many scans": lambda server, stop: _repeated(server, asked(*[with_scans(90)] * 8), stop),
    "images of too many scans": lambda server, stop: _repeated(server, asked(with_scans(5000)), stop),
    "images of too many pixels": lambda server, stop: _repeated(server, asked(bomb()), stop),
    "clients that hang up": _hung_up,
}


def attacked(server, attack, seconds):
    """The seconds of each good request while an attack goes on; infinite for one without an answer."""
    stop, good, waited = threading.Event(), asked(server.image), []
    attacker = threading.Thread(target=attack, args=(server, stop))
    attacker.start()
    try:
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            status, took = server.ask(good)
            waited.append(took if status == 200 else float("inf"))
            time.sleep(0.1)
    finally:
        stop.set()
        attacker.join()
    return waited


def campaign(requests, clients, seconds, attacks=tuple(ATTACKS), say=print):
    """Returns how many things went wrong."""
    with tempfile.TemporaryDirectory() as folder, contextlib.closing(Server(pathlib.Path(folder))) as server:
        for _ in range(5):
            server.ask(asked(server.image))
        before = server.memory()
        bad = crowd(server, requests, clients)
        say(f"crowd: {requests} requests of {clients} clients; {len(bad)} wrong answers {sorted(set(bad))}")
        slowest, late = 0, 0
        for name in attacks:
            waited = attacked(server, ATTACKS[name], seconds)
            slowest, late = max(slowest, *waited), late + sum(one > _WITHIN for one in waited)
            say(f"{name}: {len(waited)} good requests, the slowest answered in {max(waited):.2f} s")
        grown, alive = server.memory() - before, server.lives
    say(
        f"attacks: {requests} requests of {clients} clients, {len(bad)} answered wrongly; under {len(attacks)} attacks "
        f"{late} good requests later than {_WITHIN} s, the slowest {slowest:.2f} s; memory grew by {grown:.0f} MB; "
        f"the server {'lives' if alive else 'DIED'}"
    )
    return len(bad) + late + (not alive)


if __name__ == "__main__":
    quiet.tensorflow()
    arguments = [int(one) for one in sys.argv[1:]]
    sys.exit(bool(campaign(*(arguments + [2000, 32, 20][len(arguments) :]))))
