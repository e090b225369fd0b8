"""The page of a served model: static files that talk to the server they came from, and to no other.

    GET  /                  the page
    GET  /page/FILE         its files
    GET  /page/model.json   what it has to know of the model
    GET  /page/gallery/N    an image to try
    POST /page/classes      {"classes": {name: {attribute: value}}} or {"table": CSV}; where the model has an encoder,
                            {"words": {name: text}} too, and a "description" beside attributes: rows of these classes

Scores come from `:predict`, as for any other client. Attributes become rows of classes here and not in the browser, so
that a class means the same on the page, in a command and in Python.
"""

import csv
import importlib.resources
import io
import json
import math
import re

import fastapi
import numpy as np

from zslkeras.benchmarks import tables
from zslkeras.errors import InputError, quoted
from zslkeras.evaluation import metrics
from zslkeras.images import decode
from zslkeras.serving import candidates, words

CLASSES = 200  # in one request: filling attributes in takes milliseconds for each
LETTERS = 200  # of a name
SAID, WORDS = 20, 2_000  # classes in words in one request, and letters of each: the encoder takes a while
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}
SHOWN, _SIDE = 24, 1024  # images of a gallery, and the most pixels of their longer side
_KINDS = {"classes": "{attribute: value}", "table": "lines of CSV", "words": "a text"}  # of requests for rows
_FAR = 3.0  # times the chosen gamma: how far that on the page goes
_POINTS = 301  # of the curve
_TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript"}


class Page:
    """The page of an export whose endpoints take the bytes of images.

    Args:
        exported: a `recognise.Exported`.
        name: of the model, for clients.
        text_encoder: reads words, see `encoders.load`; None for that of the training, if it is still there.
        gallery: paths of images to try, of which the page shows some.
    """

    def __init__(self, exported, name, text_encoder=None, gallery=()):
        exported.require_images()
        self._exported, self._name = exported, name
        places = np.linspace(0, len(gallery) - 1, min(len(gallery), SHOWN)).astype(int)
        self._gallery = [(gallery[place].name, decode.shrunk(gallery[place], _SIDE)) for place in places]
        self._encoder = _encoder(exported.metadata["attributes"].get("words"), text_encoder)
        self._own, self._attributes = exported.classes, exported.metadata["attributes"]

    def add_to(self, app, computed, limits):
        """Adds the page to an application.

        Args:
            app: of FastAPI.
            computed: (request, function) -> what a function makes of the body of a request, within limits.
            limits: what a request may take, which the page is told.
        """
        files, facts = _files(), self._facts(limits)

        @app.get("/")
        async def page():
            return _response(*files["index.html"])

        @app.get("/page/model.json")
        async def model():
            return _response(facts, "application/json")

        @app.get("/page/gallery/{number}")
        async def image(number: int):
            if not 0 <= number < len(self._gallery):
                raise fastapi.HTTPException(404, "Not Found")
            _, content = self._gallery[number]
            return _response(content, "image/jpeg" if content.startswith(b"\xff\xd8") else "image/png")

        @app.get("/page/{name}")
        async def file(name: str):
            if name not in files:
                raise fastapi.HTTPException(404, "Not Found")
            return _response(*files[name])

        @app.post("/page/classes")
        async def classes(request: fastapi.Request):
            return _response(await computed(request, self.described), "application/json")

    def _facts(self, limits):
        facts, own = self._exported.metadata, self._own
        far = _FAR * facts["gamma"] or 1.0
        gammas = [min(0.0, far), max(0.0, far)]
        maps = facts["endpoints"].get("attention", {}).get("outputs", {})
        return json.dumps(
            {
                "name": self._name,
                "method": facts["model"],
                "classes": own.names,
                "seen": own.seen.tolist(),
                "class_embeddings": [_numbers(row) for row in own.embeddings],
                "attributes": candidates.attribute_names(self._attributes),
                "gamma": facts["gamma"],
                "gammas": gammas,
                "curve": _curve(self._exported.confidence, gammas),
                "words": self._encoder is not None,
                "gallery": [name for name, _ in self._gallery],
                "crop": facts["preprocessing"]["crop"],
                # Where it looks: for each class, or for each attribute.
                "attention": {
                    name: "classes" if name == "class" else "attributes" for name in maps if f"{name}_scores" in maps
                },
                "limits": {"body": limits.body, "classes": limits.classes, "described": CLASSES, "letters": LETTERS},
            }
        )

    def described(self, body):
        """The JSON that answers a request for rows of classes."""
        given = _given(body, candidates.attribute_names(self._attributes))
        if len(given) > CLASSES:
            raise InputError(f"classes: got {len(given)} of them; wanted at most {CLASSES} per request")
        rows = [row for row in given.values() if isinstance(row, dict)]
        for name in (*given, *(key for row in rows for key in row)):
            if not 0 < len(name) <= LETTERS:
                raise InputError(f"classes: got the name {quoted(name)}; wanted 1 to {LETTERS} letters")
        numbers = (
            value for row in rows for key, value in row.items() if key != tables.DESCRIPTION or _text_of(row) is None
        )
        for value in numbers:
            if value is not None and not (isinstance(value, int | float) and abs(value) <= tables.LARGEST):
                raise InputError(f"classes: got {quoted(value)} for an attribute; wanted a number, or null")
        said = {name: _text_of(row) for name, row in given.items()}
        self._require_few(list(filter(None, said.values())))
        classes, notes = candidates.among(self._own, self._attributes, given, known=False, text_encoder=self._encoder)
        rows = zip(classes.names, classes.seen.tolist(), classes.embeddings, strict=True)
        found = [{"name": name, "seen": seen, "row": _numbers(row), "said": said[name]} for name, seen, row in rows]
        return json.dumps({"classes": found, "notes": notes})

    def _require_few(self, texts):
        """Refuses words that nothing here reads, and more of them than it reads in a moment."""
        if self._encoder is None and words.embedding_of(self._attributes) == "both":
            raise InputError("words: this server has no encoder; wanted one, as a class has text beside its attributes")
        if texts and self._encoder is None:
            raise InputError("words: this server has no encoder for them; wanted attributes")
        if len(texts) > SAID or any(len(text) > WORDS for text in texts):
            raise InputError(f"words: wanted at most {SAID} classes per request, with {WORDS:,} letters each")


def _given(body, attributes):
    """{name: {attribute: value}} of a request."""
    try:
        request = json.loads(body)
    except (ValueError, RecursionError):
        raise InputError("body: got no JSON; wanted a JSON object") from None
    if not isinstance(request, dict) or len(request.keys() & _KINDS) != 1:
        raise InputError('body: wanted a JSON object with one of "classes", "table" and "words"')
    if "table" in request:
        return _of_text(request["table"], attributes)
    kind, each = ("classes", dict) if "classes" in request else ("words", str)
    given = request[kind]
    if not isinstance(given, dict) or not all(isinstance(one, each) for one in given.values()):
        raise InputError(f"{kind}: wanted an object {{name: {_KINDS[kind]}}}")
    return given


def _encoder(known, given):
    """The name of what reads words: it is loaded here once. None where the model's own is no folder of this machine."""
    if given is None and (not known or "://" in known["encoder"]):  # nothing is fetched that nobody asked for
        return None
    try:
        return words.encoder_of(known, given).name
    except InputError:
        if given is not None:
            raise
        return None


def _of_text(text, attributes):
    """`_given` for lines of a table. Without a header, their columns are the model's attributes in order."""
    if not isinstance(text, str) or not text.strip():
        raise InputError("table: got nothing; wanted lines of CSV, as in name,0.1,0.7,...")
    text = text.strip("\r\n")
    if not re.match(r'"?class"?[,;\t]', text, re.IGNORECASE):
        first = text.partition("\n")[0]
        delimiter = max(",;\t", key=first.count)
        header = io.StringIO()
        csv.writer(header, delimiter=delimiter, lineterminator="\n").writerow(["class", *attributes])
        text = header.getvalue() + text
    table = tables.parse(text, "table", gaps=True)
    given = {}
    for name, values, texts in zip(table.names, table.values.tolist(), table.said, strict=True):
        row = [None if math.isnan(value) else value for value in values]
        given[name] = dict(zip(table.columns, row, strict=True)) | (
            {tables.DESCRIPTION: "\n".join(texts)} if texts else {}
        )
    return given


def _text_of(row):
    """What is said of a class as a request has it: a text, or {attribute: value, "description": text}; else None."""
    text = row.get(tables.DESCRIPTION) if isinstance(row, dict) else row
    return text if isinstance(text, str) else None


def _curve(confidence, gammas):
    """{"U": [n], "S": [n]} of validation rows for gammas at equal steps; None where the export has no such rows."""
    if confidence is None:
        return None
    groups = np.flatnonzero(confidence.seen), np.flatnonzero(~confidence.seen)
    outcomes = metrics.outcomes(confidence.scores, confidence.labels, *groups)
    at = [metrics.per_class(outcomes, gamma) for gamma in np.linspace(*gammas, _POINTS)]
    found = {name: [float(metrics.mean_over_classes(one[name])) for one in at] for name in "US"}
    # No number where no row is of a seen class, or of an unseen one.
    return found if all(math.isfinite(values[0]) for values in found.values()) else None


def _numbers(row):
    """A row of float32 with as few digits as read back as the same numbers."""
    return [float(str(value)) for value in np.asarray(row, np.float32)]


def _files():
    """{name: (content, type)} of the static files beside this module."""
    found = (one for one in importlib.resources.files(__name__).iterdir())
    typed = ((one, _TYPES.get(one.name[one.name.rfind(".") :])) for one in found)
    return {one.name: (one.read_bytes(), f"{kind}; charset=utf-8") for one, kind in typed if kind}


def _response(content, kind):
    return fastapi.Response(content, media_type=kind, headers=HEADERS)
