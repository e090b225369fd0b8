"""Connections of the server, so that nobody holds it by sending little.

uvicorn waits for the head of a request as long as a client likes, and refuses new connections where there are many.
Here a head has a deadline, and where connections are many the oldest one that still owes a request gives way.
"""

import collections
import ipaddress
import json
import socket

from uvicorn.protocols.http.h11_impl import H11Protocol


def protocol_of(heads, most):
    """The class of connections that uvicorn makes.

    Args:
        heads: seconds for the head of a request.
        most: how many connections are open at once, if requests owed by others can give way.
    """
    owing = collections.OrderedDict()  # connections that owe a request or the rest of one, oldest first

    class Connection(H11Protocol):
        _deadline = None

        def connection_made(self, transport):
            super().connection_made(transport)
            owing[self] = True
            self._await_head()
            if len(self.connections) > most:
                oldest = next(iter(owing))
                oldest.transport.abort()
                oldest.connection_lost(None)  # which the loop would call later: several may come at once

        def data_received(self, data):
            if self._deadline is None and (self.cycle is None or self.cycle.response_complete):
                self._await_head()
            super().data_received(data)
            if self.cycle is not None and not self.cycle.response_complete:
                self._stop()
                if not self.cycle.more_body:
                    owing.pop(self, None)

        def on_response_complete(self):
            super().on_response_complete()
            owing[self] = True

        def connection_lost(self, exc):
            self._stop()
            owing.pop(self, None)
            super().connection_lost(exc)

        def _await_head(self):
            self._deadline = self.loop.call_later(heads, self.transport.abort)

        def _stop(self):
            if self._deadline is not None:
                self._deadline.cancel()
                self._deadline = None

    return Connection


def of_this_machine(app, names=()):
    """The application, for requests to this machine alone: a page of another site may give its own name our address.

    Args:
        app: an ASGI application.
        names: names of this machine besides localhost and its own; addresses need none.
    """
    trusted = {"localhost", socket.gethostname().lower(), *(name.lower() for name in names)}

    async def guarded(scope, receive, send):
        hosts = [value.decode("latin-1") for key, value in scope.get("headers", ()) if key == b"host"]
        wrong = [host for host in hosts if not (_is_address(_name_of(host)) or _name_of(host) in trusted)]
        if scope["type"] == "http" and wrong:
            said = f"Host: got {wrong[0][:100]}; wanted an address or a name of this machine, or one of --known_as"
            body = json.dumps({"error": said}).encode()
            head = {"status": 421, "headers": [(b"content-type", b"application/json")]}
            await send({"type": "http.response.start", **head})
            await send({"type": "http.response.body", "body": body})
        else:
            await app(scope, receive, send)

    return guarded


def _name_of(host):
    """localhost of localhost:8501, ::1 of [::1]:8501."""
    return (host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]).lower()


def _is_address(name):
    try:
        return bool(ipaddress.ip_address(name))
    except ValueError:
        return False
