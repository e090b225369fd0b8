"""A server of this process that tests are clients of."""

import http.client
import json
import re
import threading


class Server:
    """A server in a thread of this process, on a free port of this machine."""

    def __init__(self, model, limits, known_as=(), page=None):
        from zslkeras.serving import rest  # needs the extra [serve]

        said, ready = [], threading.Event()

        def say(line):
            said.append(line)
            ready.set()

        arguments = (model, "drawn", "127.0.0.1", 0, limits, say)
        named = {"known_as": known_as, "page": page}
        threading.Thread(target=rest.serve, args=arguments, kwargs=named, daemon=True).start()
        assert ready.wait(30)
        self.port = int(re.search(r":(\d+)/", said[0])[1])

    def ask(self, request, path="/v1/models/drawn:predict", method="POST", host="localhost"):
        """(status, what came back as JSON) of one request; a dict goes as JSON, bytes as they are."""
        status, _, content = self.fetch(request, path, method, host)
        return status, json.loads(content)

    def fetch(self, request, path, method="GET", host="localhost"):
        """(status, headers, bytes) of one request."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            body = request if isinstance(request, bytes | None) else json.dumps(request).encode()
            connection.request(method, path, body, {"Host": host})
            response = connection.getresponse()
            return response.status, dict(response.getheaders()), response.read()
        finally:
            connection.close()
