"""Serves one SavedModel with the REST interface of TensorFlow Serving, for a laptop and for tests.

    GET  /v1/models/NAME                whether the model is there
    POST /v1/models/NAME:predict        {"signature_name": ..., "instances": [...]} or {..., "inputs": ...}

Values, base64 `{"b64": ...}`, answers and status codes are those of TensorFlow Serving, so that a client of one works
with the other. Everything that a client can make large has a limit: see `Limits`.
"""

import asyncio
import base64
import binascii
import concurrent.futures
import dataclasses
import json
import socket
import sys

import fastapi
import numpy as np
import tensorflow as tf
import uvicorn
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from zslkeras.errors import InputError, quoted
from zslkeras.images import decode
from zslkeras.serving import connections
from zslkeras.serving.export import sentence

VERSION = "1"
DEFAULT_SIGNATURE = "serving_default"
_DRAINED = 4  # too large bodies are read up to this many times the limit: clients listen only after sending


@dataclasses.dataclass(frozen=True)
class Limits:
    # Of a request.
    body: int = 64 * 2**20  # bytes
    rows: int = 256
    classes: int = 20_000
    scores: int = 2_000_000  # rows times classes
    work: int = 4 * decode.MAX_PIXELS  # pixels of its images, times their scans
    head_seconds: float = 10.0  # to send its head
    body_seconds: float = 5.0  # to send its body, and more by `rate`
    rate: int = 64 * 2**10  # bytes per second that a body has to come with
    seconds: float = 30.0  # to wait and to be computed
    # Of all.
    bodies: int = 256 * 2**20  # bytes that are being read
    at_once: int = 2  # requests computed at a time
    in_flight: int = 16  # requests waiting or computed; further ones are refused
    connections: int = 256


class Refused(Exception):
    """A refused request, with a status code and a sentence."""

    def __init__(self, status, sentence):
        super().__init__(sentence)
        self.status = status


def app_of(model, name, limits=Limits(), page=None):
    """The application that serves a loaded SavedModel under a name, and a `page.Page` of it if there is one."""
    app = fastapi.FastAPI(openapi_url=None)
    workers, bodies = concurrent.futures.ThreadPoolExecutor(limits.at_once), _Bodies(limits)
    in_flight = 0

    @app.get("/v1/models/{asked}")
    @app.get("/v1/models/{asked}/versions/{version}")
    async def status(asked: str, version: str = VERSION):
        _require_served(asked, version)
        state = {"version": VERSION, "state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}}
        return {"model_version_status": [state]}

    @app.post("/v1/models/{asked}:predict")
    @app.post("/v1/models/{asked}/versions/{version}:predict")
    async def predict(request: fastapi.Request, asked: str, version: str = VERSION):
        _require_served(asked, version)
        answer = await computed(request, lambda body: answered(model, body, limits))
        return fastapi.Response(answer, media_type="application/json")

    async def computed(request, function):
        """What a function makes of the body of a request."""
        nonlocal in_flight
        body = await bodies.read(request)
        if in_flight >= limits.in_flight:
            raise Refused(503, f"{in_flight} requests are being answered; try again in a moment")
        in_flight += 1
        try:
            async with asyncio.timeout(limits.seconds):
                loop = asyncio.get_running_loop()
                return await loop.run_in_executor(workers, function, body)
        except TimeoutError:
            raise Refused(504, f"no answer within {limits.seconds:g} seconds") from None
        except InputError as error:
            raise Refused(400, str(error)) from None
        finally:
            in_flight -= 1

    def _require_served(asked, version):
        if (asked, version) != (name, VERSION):
            raise Refused(404, f"no model {quoted(asked)} of version {quoted(version)}; wanted {name}")

    @app.exception_handler(Refused)
    async def refused(_, error):
        return fastapi.responses.JSONResponse({"error": str(error)}, error.status)

    @app.exception_handler(HTTPException)
    async def unknown(request, error):
        got = f"{request.method} {quoted(request.url.path)}: {error.detail}"
        return fastapi.responses.JSONResponse({"error": got}, error.status_code)

    @app.exception_handler(Exception)
    async def failed(_, error):
        del error  # the server's own log has it
        return fastapi.responses.JSONResponse({"error": "the server failed; its log says why"}, 500)

    if page is not None:
        page.add_to(app, computed, limits)
    return app


class _Bodies:
    """Reads bodies of requests that are neither large nor slow, and not more at once than fit into the memory."""

    def __init__(self, limits):
        self._limits, self._sizes = limits, {}

    async def read(self, request):
        loop = asyncio.get_running_loop()
        latest = loop.time() + self._limits.body_seconds
        self._sizes[request] = 0
        try:
            async with asyncio.timeout(self._limits.body_seconds) as deadline:
                parts = []
                async for part in request.stream():
                    self._add(request, part, parts)
                    deadline.reschedule(latest + self._sizes[request] / self._limits.rate)
                    if self._sizes[request] > _DRAINED * self._limits.body:
                        break
            if self._sizes[request] > self._limits.body:
                raise Refused(413, f"body: got more than {self._limits.body} bytes; wanted at most that many")
            return b"".join(parts)
        except ClientDisconnect:
            raise Refused(400, "the client has hung up") from None  # nobody reads it
        except TimeoutError:
            raise Refused(408, f"body: slower than {self._limits.rate} bytes per second; wanted it faster") from None
        finally:
            del self._sizes[request]

    def _add(self, request, part, parts):
        self._sizes[request] += len(part)
        if self._sizes[request] > self._limits.body:
            parts.clear()  # it is refused in the end
            return
        parts.append(part)
        # Small requests get through while large ones fill the memory.
        if sum(self._sizes.values()) > self._limits.bodies < self._sizes[request] * len(self._sizes):
            raise Refused(503, "many large requests are being read; try again in a moment")


def answered(model, body, limits):
    """The JSON that answers a request."""
    try:
        request = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise Refused(400, f"body: got no JSON ({str(error)[:100]}); wanted a JSON object") from None
    if not isinstance(request, dict) or ("instances" in request) == ("inputs" in request):
        raise Refused(400, 'body: wanted a JSON object with either "instances" or "inputs"')
    asked = request.get("signature_name") or DEFAULT_SIGNATURE
    if not isinstance(asked, str) or asked not in model.signatures:
        wanted = ", ".join(sorted(model.signatures))
        raise Refused(400, f"signature_name: got {quoted(asked)}; wanted one of {wanted}")
    endpoint = model.signatures[asked]
    specs = endpoint.structured_input_signature[1]
    by_row = "instances" in request
    given = _by_name(request["instances"], specs) if by_row else request["inputs"]
    if not isinstance(given, dict) or _is_bytes(given):
        given = {next(iter(specs)): given} if len(specs) == 1 else {}
    if set(given) != set(specs):
        got = quoted(", ".join(sorted(map(str, given)))) if given else "none"
        raise Refused(400, f"{asked}: got inputs {got}; wanted {', '.join(sorted(specs))}")
    tensors = {name: _tensor(name, given[name], spec, limits) for name, spec in specs.items()}
    rows = max((len(tensor) for name, tensor in tensors.items() if name.startswith("inputs")), default=0)
    scores = rows * len(tensors.get("class_embeddings", ()))
    if scores > limits.scores:
        raise Refused(400, f"inputs: {scores:,} scores to compute; wanted at most {limits.scores:,} per request")
    try:
        outputs = {name: value.numpy() for name, value in endpoint(**tensors).items()}
    except (tf.errors.InvalidArgumentError, tf.errors.FailedPreconditionError, ValueError, TypeError) as error:
        raise Refused(400, sentence(error)) from None
    except tf.errors.ResourceExhaustedError as error:
        raise Refused(429, sentence(error)) from None
    values = {name: value.tolist() for name, value in outputs.items()}
    if len(values) == 1:
        (answer,) = values.values()
    elif by_row:
        answer = [dict(zip(values, row, strict=True)) for row in zip(*values.values(), strict=True)]
    else:
        answer = values
    try:
        return json.dumps({"predictions" if by_row else "outputs": answer}, allow_nan=False)
    except ValueError:
        raise Refused(400, "the answer has numbers that are not finite; wanted inputs of a usual size") from None


def _by_name(instances, specs):
    """The rows of "instances" as columns: name -> list."""
    if not isinstance(instances, list):
        raise Refused(400, "instances: wanted a list of rows")
    if not all(isinstance(row, dict) and not _is_bytes(row) for row in instances) or not instances:
        return instances if len(specs) == 1 else {}
    if any(set(row) != set(specs) for row in instances):
        raise Refused(400, f"instances: wanted {', '.join(sorted(specs))} in every row")
    return {name: [row[name] for row in instances] for name in specs}


def _is_bytes(value):
    return isinstance(value, dict) and set(value) == {"b64"}


def _tensor(name, value, spec, limits):
    """A JSON value as the tensor that an endpoint takes."""
    most = limits.rows if name.startswith("inputs") else limits.classes
    if isinstance(value, list) and len(value) > most:
        raise Refused(400, f"{name}: got {len(value)} of them; wanted at most {most} per request")
    if spec.dtype == tf.string:
        if not isinstance(value, list):
            raise Refused(400, f"{name}: wanted a list")
        contents = [_bytes(name, one) for one in value]
        if (work := sum(map(_work, contents))) > limits.work:
            raise Refused(400, f"{name}: {work:,} pixels to decode; wanted at most {limits.work:,} per request")
        return tf.constant(contents, tf.string)
    try:
        array = np.asarray(value)
    except ValueError:
        raise Refused(400, f"{name}: got rows of different lengths; wanted a tensor") from None
    kinds = "b" if spec.dtype.is_bool else "iuf" if spec.dtype.is_floating else "iu"
    if array.size and array.dtype.kind not in kinds:
        raise Refused(400, f"{name}: got values that are not {spec.dtype.name}; wanted nothing else")
    if array.size and spec.dtype == tf.uint8 and not 0 <= array.min() <= array.max() <= 255:
        raise Refused(400, f"{name}: got values from {array.min()} to {array.max()}; wanted 0 to 255")
    if array.ndim != spec.shape.rank:
        if array.size:
            raise Refused(400, f"{name}: got {array.ndim} dimensions; wanted {spec.shape.rank}")
        array = np.reshape(array, [0] * spec.shape.rank)  # an empty list has lost its other dimensions
    with np.errstate(over="ignore"):  # values beyond float32 become infinite, and are refused as such
        return tf.constant(array.astype(spec.dtype.as_numpy_dtype))


def _bytes(name, value):
    try:
        if _is_bytes(value):
            return base64.b64decode(value["b64"], validate=True)
        return value.encode()
    except (AttributeError, TypeError, ValueError, binascii.Error):
        raise Refused(400, f'{name}: wanted bytes, each as {{"b64": "..."}} in base64') from None


def _work(contents):
    """What it takes to decode an image; of what is none, the graph says so."""
    try:
        pixels, scans = decode.size_of(contents)
    except Exception:  # Pillow raises anything
        return 0
    return pixels * scans


def serve(model, name, host, port, limits=Limits(), say=print, known_as=(), page=None):
    """Serves a loaded SavedModel until the process is stopped.

    Args:
        model: of `tf.saved_model.load`.
        name: of the model, for clients.
        host, port: where to listen.
        limits: what a request may take.
        say: called with the address.
        known_as: names of this machine, which clients call besides localhost and its own.
        page: a `page.Page` of the model, or None.
    """
    listening = socket.socket()
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
        listening.listen()  # clients that connect before the loop runs wait, and are not refused
    except (OSError, OverflowError) as error:
        raise InputError(f"port: {host}:{port}: {error}; wanted a free port of this machine") from error
    address = f"http://{host}:{listening.getsockname()[1]}/"
    say(f"serving {address}v1/models/{name}:predict")
    if page is not None:
        say(f"page {address}")
    sys.stdout.flush()
    app = connections.of_this_machine(app_of(model, name, limits, page), (host, *known_as))
    protocol = connections.protocol_of(limits.head_seconds, limits.connections)
    config = uvicorn.Config(app, http=protocol, ws="none", log_level="warning", timeout_keep_alive=5)
    uvicorn.Server(config).run(sockets=[listening])
