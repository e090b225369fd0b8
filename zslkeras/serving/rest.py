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

from zslkeras.errors import InputError
from zslkeras.serving.export import sentence

VERSION = "1"
DEFAULT_SIGNATURE = "serving_default"
_DRAINED = 4  # too large bodies are read up to this many times the limit: clients listen only after sending


@dataclasses.dataclass(frozen=True)
class Limits:
    body: int = 64 * 2**20  # bytes of a request
    rows: int = 256  # of a request
    classes: int = 20_000  # of a request
    at_once: int = 2  # requests computed at a time
    in_flight: int = 16  # requests being read, waiting or computed; further ones are refused
    seconds: float = 30.0  # for a whole request
    connections: int = 256


class Refused(Exception):
    """A refused request, with a status code and a sentence."""

    def __init__(self, status, sentence):
        super().__init__(sentence)
        self.status = status


def app_of(model, name, limits=Limits()):
    """The application that serves a loaded SavedModel under a name."""
    app = fastapi.FastAPI(openapi_url=None)
    workers = concurrent.futures.ThreadPoolExecutor(limits.at_once)
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
        nonlocal in_flight
        _require_served(asked, version)
        if in_flight >= limits.in_flight:
            raise Refused(503, f"{in_flight} requests are being answered; try again in a moment")
        in_flight += 1
        try:
            async with asyncio.timeout(limits.seconds):
                body = await _body(request, limits.body)
                loop = asyncio.get_running_loop()
                answer = await loop.run_in_executor(workers, answered, model, body, limits)
        except ClientDisconnect:
            raise Refused(400, "the client has hung up") from None  # nobody reads it
        except TimeoutError:
            raise Refused(504, f"no answer within {limits.seconds:g} seconds") from None
        finally:
            in_flight -= 1
        return fastapi.Response(answer, media_type="application/json")

    def _require_served(asked, version):
        if (asked, version) != (name, VERSION):
            raise Refused(404, f"no model {asked} of version {version}; wanted {name}")

    @app.exception_handler(Refused)
    async def refused(_, error):
        return fastapi.responses.JSONResponse({"error": str(error)}, error.status)

    @app.exception_handler(HTTPException)
    async def unknown(request, error):
        got = f"{request.method} {request.url.path}: {error.detail}"
        return fastapi.responses.JSONResponse({"error": got}, error.status_code)

    @app.exception_handler(Exception)
    async def failed(_, error):
        del error  # the server's own log has it
        return fastapi.responses.JSONResponse({"error": "the server failed; its log says why"}, 500)

    return app


async def _body(request, most):
    """The body of a request, if it is not too large."""
    parts, size = [], 0
    async for part in request.stream():
        size += len(part)
        if size <= most:
            parts.append(part)
        else:
            parts.clear()
        if size > _DRAINED * most:
            break
    if size > most:
        raise Refused(413, f"body: got more than {most} bytes; wanted at most that many")
    return b"".join(parts)


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
        raise Refused(400, f"signature_name: got {asked!r}; wanted one of {', '.join(sorted(model.signatures))}")
    endpoint = model.signatures[asked]
    specs = endpoint.structured_input_signature[1]
    by_row = "instances" in request
    given = _by_name(request["instances"], specs) if by_row else request["inputs"]
    if not isinstance(given, dict) or _is_bytes(given):
        given = {next(iter(specs)): given} if len(specs) == 1 else {}
    if set(given) != set(specs):
        got = ", ".join(sorted(map(str, given))) or "none"
        raise Refused(400, f"{asked}: got inputs {got}; wanted {', '.join(sorted(specs))}")
    tensors = {name: _tensor(name, given[name], spec, limits) for name, spec in specs.items()}
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
    return json.dumps({"predictions" if by_row else "outputs": answer})


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
        return tf.constant([_bytes(name, one) for one in value], tf.string)
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


def serve(model, name, host, port, limits=Limits(), say=print):
    """Serves a loaded SavedModel until the process is stopped."""
    listening = socket.socket()
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
        listening.listen()  # clients that connect before the loop runs wait, and are not refused
    except (OSError, OverflowError) as error:
        raise InputError(f"port: {host}:{port}: {error}; wanted a free port of this machine") from error
    say(f"serving http://{host}:{listening.getsockname()[1]}/v1/models/{name}:predict")
    sys.stdout.flush()
    app = app_of(model, name, limits)
    config = uvicorn.Config(app, log_level="warning", limit_concurrency=limits.connections, timeout_keep_alive=5)
    uvicorn.Server(config).run(sockets=[listening])
