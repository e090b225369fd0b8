"""Features of images by a backbone, made once and written as they are made.

`<name>.mat` holds labels, image_files and the pooled features, in the field's keys; `<name>_maps.npy` the last maps
[N, H, W, F]; `<name>_<layer>.npy` the maps of a level; `<name>.json` how they were made. Until they are complete, they
are in `.<name>.partial` beside a record of progress: a run that was killed continues from there, and ends with the same
bytes as one that was not.
"""

import contextlib
import errno
import hashlib
import io
import itertools
import math
import os
import shutil
import time

import keras
import numpy as np
import PIL
import scipy.io
import tensorflow as tf

from zslkeras import atomic, graphs, names
from zslkeras.errors import InputError, did_you_mean
from zslkeras.images import backbones, decode, prepared
from zslkeras.images.pooling import MEAN, pooled, pooled_width
from zslkeras.progress import Progress
from zslkeras.structure import Each
from zslkeras.version import versions

_RECORD = {"settings": dict, "pictures": str, "done": int, "skipped": Each(str)}
_RECORD_SECONDS = 5  # between two records; after a kill, the rows after the last record are made again
_MAT_HEADER = b"MATLAB 5.0 MAT-file, written by zslkeras".ljust(116)  # scipy would put the time there
_MAT_BYTES = 2**32  # limit of a variable in that format
_SPARE_BYTES = 2**24  # left free on the disk, for the small files


class Extractor:
    """A backbone, the preprocessing of its images, and the parts of its output that are kept.

    Attributes:
        size: side of the images.
        settings: everything that the results depend on, for JSON.
        stores: {"pooled", "maps" or the name of a layer: (shape of a row, dtype)}.
    """

    def __init__(
        self,
        name,
        weights,
        size,
        what,
        layers=None,
        preprocessing="own",
        dtype="float16",
        pooling=MEAN,
        pool_layers=(),
    ):
        """
        Args:
            name, weights, size: see `backbones.backbone`.
            what: some of names.WHAT.
            layers: of the levels; those of `backbones.LEVELS` if None.
            preprocessing: see `backbones.preprocess`.
            dtype: of maps and levels. Pooled features are float32, made of the maps before they are rounded.
            pooling: how pooled features are made of maps, some of names.POOLINGS; see `pooling.pooled`.
            pool_layers: the layers whose maps are pooled; none for the last map.
        """
        name = backbones.known(name)
        layers = (layers or backbones.default_layers(name)) if "levels" in what else []
        pooling, pool_layers = (tuple(pooling) or MEAN, tuple(pool_layers)) if "pooled" in what else (MEAN, ())
        _require_different("pooling", pooling, names.POOLINGS)
        _require_different("pool_layers", pool_layers)
        model = backbones.backbone(name, weights, size)
        outputs = {"maps": model.output, **dict(zip(layers, backbones.levels(model, layers), strict=True))}
        pooled_from = dict(zip(pool_layers, backbones.levels(model, pool_layers, "pool_layers"), strict=True))
        pooled_from = pooled_from or {"maps": model.output}
        self._pooled = lambda maps: pooled([maps[key] for key in pooled_from], pooling)
        self._model = keras.Model(model.input, outputs | pooled_from)
        self._prepared = lambda pictures: backbones.preprocess(name, pictures, preprocessing)
        shapes = {key: tuple(output.shape[1:]) for key, output in outputs.items()}
        kept = [key for key in outputs if key != "maps" or "maps" in what]
        width = pooled_width([maps.shape[-1] for maps in pooled_from.values()], pooling)
        self.stores = {"pooled": ((width,), np.dtype(np.float32))} if "pooled" in what else {}
        self.stores |= {key: (shapes[key], np.dtype(dtype)) for key in kept}
        self.size = size
        self.settings = {
            "backbone": name,
            "weights": backbones.digest(model),
            "preprocessing": preprocessing,
            "size": size,
            "what": [kind for kind in names.WHAT if kind in what],
            "layers": list(layers),
            "dtype": dtype,
            "versions": versions() | {"Pillow": PIL.__version__},
        }
        if (pooling, pool_layers) != (MEAN, ()):  # a record that names none is of the mean of the last map
            self.settings |= {"pooling": list(pooling), "pool_layers": list(pool_layers)}
        self._run = graphs.function(self.outputs, input_signature=[tf.TensorSpec([None, size, size, 3], tf.uint8)])

    @classmethod
    def again(cls, record, weights, what):
        """The extractor that wrote a record of results, for some of what it made.

        Args:
            record: the content of `<name>.json`.
            weights: of the backbone; the record has their digest, which the caller compares.
            what: some of names.WHAT.
        """
        return cls(
            record["backbone"],
            weights,
            record["size"],
            what,
            record["layers"] or None,
            record["preprocessing"],
            record["dtype"],
            record.get("pooling", MEAN),
            record.get("pool_layers", ()),
        )

    def __call__(self, pictures):
        """uint8 [B, size, size, 3] to {store: [B, ...]}, and [B] whether a row is finite."""
        made, finite = self._run(pictures), np.ones(len(pictures), bool)
        with np.errstate(over="ignore"):  # values beyond float16 turn infinite, and are reported
            made = {store: made[store].numpy().astype(dtype) for store, (_, dtype) in self.stores.items()}
        for rows in made.values():
            finite &= np.isfinite(rows).reshape(len(rows), -1).all(axis=1)
        return made, finite

    def outputs(self, pictures):
        """A tensor uint8 [B, size, size, 3] to {store: [B, ...]} float32, in a graph."""
        made = self._model(self._prepared(pictures), training=False)
        made |= {"pooled": self._pooled(made)}
        return {store: made[store] for store in self.stores}


def extract(extractor, pictures, name, *, batch_size=32, overwrite=False, skip_bad=False, say=print):
    """Makes and writes the features of images.

    Args:
        extractor: an Extractor.
        pictures: the images, and the folder for the results: see `benchmarks.pictures`.
        name: of the results.
        batch_size: images at a time.
        overwrite: replace results of that name, and start over if another command began them.
        skip_bad: leave out images that do not decode, instead of stopping at the first.
        say: called with each line for the user.
    """
    require_free(pictures, name, extractor.stores, overwrite)
    job = _Job(extractor, pictures, name, batch_size)
    with job.locked():
        job.resume(overwrite, skip_bad)
        job.require_space(say)
        try:
            job.fill(skip_bad)
            job.publish(say)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            got = f"{error.strerror} after {job.recorded} of {len(pictures.files)} images"
            wanted = f"free {job.bytes_left() / 1e9:.2f} GB and run the same command again, which continues from there"
            raise InputError(f"{pictures.folder}: {got}; {wanted}") from error


def require_free(pictures, name, stores, overwrite):
    """Refuses the name of other files, and that of results unless they may be overwritten."""
    base = pictures.folder / name
    paths = [base.with_name(f"{name}{end}") for end in (".mat", ".json", *(f"_{store}.npy" for store in stores))]
    there = [path for path in paths if path.exists()]
    record = atomic.read_json(_record_file(pictures, name), _RECORD)
    if not there or record.get("done") == len(pictures.files):  # killed while its finished files were renamed
        return
    if not overwrite:
        raise InputError(f"name: {there[0]} exists already; wanted another name, or overwrite")
    if not base.with_name(f"{name}.json").exists():
        raise InputError(f"name: {there[0]} is no result of this command (no {name}.json); wanted another name")


def _record_file(pictures, name):
    return pictures.folder / f".{name}.partial" / "record.json"


class _Job:
    """One set of unfinished results: stores that grow by whole batches, and a record of their progress."""

    def __init__(self, extractor, pictures, name, batch_size):
        self.extractor, self.pictures, self.name, self.batch_size = extractor, pictures, name, batch_size
        self.record_file = _record_file(pictures, name)
        self.folder = self.record_file.parent
        listed = "\n".join(f"{file}\0{label}" for file, label in zip(pictures.files, pictures.labels, strict=True))
        self.settings = {**extractor.settings, "batch_size": batch_size, "image_files": _digest(listed)}
        self.maps = {store: pictures.folder / f"{name}_{store}.npy" for store in extractor.stores if store != "pooled"}
        self.mat, self.sidecar, self.skipped_file = (
            pictures.folder / f"{name}{end}" for end in (".mat", ".json", "_skipped.txt")
        )
        self.done = self.recorded = 0  # images, including the skipped
        self.skipped = {}  # {index of an image: why}
        self.seen = hashlib.sha256()  # of the images done

    @contextlib.contextmanager
    def locked(self):
        """Keeps out a second process; the lock is released when the process ends, however it ends."""
        self.folder.mkdir(exist_ok=True)
        with atomic.locked(self.folder):
            try:
                yield
            finally:
                with contextlib.suppress(OSError):
                    self.folder.rmdir()  # only if nothing was begun

    def resume(self, overwrite, skip_bad):
        """Continues an earlier run of this job; refuses the remains of another job."""
        record = atomic.read_json(self.record_file, _RECORD)
        if not record:
            return
        self.done = self.recorded = record["done"]
        self.skipped = {int(index): reason for index, reason in record["skipped"].items()}
        self._look_at(0, self.done)
        problem = self._problem(record, skip_bad)
        if problem and not overwrite:
            raise InputError(f"{self.folder}: {problem}; overwrite starts over")
        if problem:
            self.done, self.recorded, self.skipped, self.seen = 0, 0, {}, hashlib.sha256()
            self.record_file.unlink()

    def _problem(self, record, skip_bad):
        """The reason why the record is not one of this job, or None."""
        mine = {**self.settings, "pictures": self.seen.hexdigest()}
        theirs = {**record["settings"], "pictures": record["pictures"]}
        for key in mine | theirs:  # pooling is in only some of them
            if theirs.get(key) != mine.get(key):
                return f"begun with {key} {theirs.get(key)}, now {mine.get(key)}; wanted the same"
        if self.skipped and not skip_bad:
            return "begun with skip_bad; wanted it again"
        for store in self.extractor.stores:
            path, published = self._draft(store), self.done == len(self.pictures.files)
            if not published and (not path.exists() or path.stat().st_size < self._size(store)):
                return f"{path.name} is shorter than its {self.done} rows; wanted it unchanged"
        return None

    def require_space(self, say):
        rows = len(self.pictures.files)
        for store, (shape, dtype) in self.extractor.stores.items():
            where = self.mat if store == "pooled" else self.maps[store]
            say(f"{where}: {[rows, *shape]} {dtype}, {rows * self._row_bytes(store) / 1e9:.2f} GB")
        if "pooled" in self.extractor.stores and rows * self._row_bytes("pooled") >= _MAT_BYTES:
            got = f"the pooled features of {rows} images would have 4 GB or more"
            raise InputError(f"{self.mat}: {got}; wanted less, the limit of a .mat file")
        left, free = self.bytes_left(), shutil.disk_usage(self.folder).free
        if left > free:
            got = f"{free / 1e9:.2f} GB are free"
            raise InputError(f"{self.pictures.folder}: {got}; wanted the {left / 1e9:.2f} GB still to be written")

    def bytes_left(self):
        """Bytes still to be written; the .mat file is made from the pooled store, so both exist for a while."""
        rows = len(self.pictures.files)
        left = sum((rows - self.recorded) * self._row_bytes(store) for store in self.extractor.stores)
        return left + _SPARE_BYTES + (rows * self._row_bytes("pooled") if "pooled" in self.extractor.stores else 0)

    def fill(self, skip_bad):
        """Makes the remaining rows."""
        paths, total = self.pictures.paths, len(self.pictures.paths)
        if self.done == total:
            return
        decoded = decode.stream(paths[self.done :], self.extractor.size)
        began, start = time.monotonic(), self.done
        with (
            contextlib.ExitStack() as files,
            contextlib.closing(decoded),
            Progress(self.name, total, start) as bar,
        ):
            stores = {store: files.enter_context(self._opened(store)) for store in self.extractor.stores}
            recorded = time.monotonic()
            try:
                while self.done < total:
                    batch = dict(enumerate(itertools.islice(decoded, self.batch_size), self.done))
                    bad = {index: str(one) for index, one in batch.items() if isinstance(one, InputError)}
                    if bad and not skip_bad:
                        raise InputError(f"{next(iter(bad.values()))}; skip_bad leaves out such images")
                    self._write(stores, {index: one for index, one in batch.items() if index not in bad})
                    self._look_at(self.done, self.done + len(batch))
                    self.done += len(batch)
                    self.skipped |= bad
                    if time.monotonic() - recorded > _RECORD_SECONDS:
                        self._save(stores)
                        recorded = time.monotonic()
                    rate = (self.done - start) / (time.monotonic() - began)
                    bar.advance(len(batch), f"{rate:.0f} images/s")
            finally:
                self._save(stores)

    def publish(self, say):
        """Moves the finished files into place; after a kill during this, the rest of them."""
        files, labels = np.array(self.pictures.files, object), np.asarray(self.pictures.labels)
        kept = np.setdiff1d(np.arange(len(files)), list(self.skipped))
        lost = np.setdiff1d(labels, labels[kept])
        if len(lost):
            raise InputError(f"{self.folder.parent}: no image of class {lost[0]} decodes; wanted one of each class")
        for store in self.extractor.stores:
            self._close(store, len(kept))
        for path in self._stale():
            path.unlink(missing_ok=True)
        for store, path in self.maps.items():
            if self._draft(store).exists():
                os.replace(self._draft(store), path)
        self._write_mat(files, labels, kept)
        if self.skipped:
            lines = [f"{files[index]}\t{reason}\n" for index, reason in sorted(self.skipped.items())]
            atomic.write_text(self.skipped_file, "".join(lines))
            say(f"{self.skipped_file}: {len(lines)} images left out")
        sizes = "\n".join(f"{files[row]}\0{os.path.getsize(self.pictures.paths[row])}" for row in kept)
        facts = {"rows": len(kept), "skipped": len(self.skipped), "pictures": _digest(sizes), "finite": True}
        atomic.write_json(self.sidecar, {**self.settings, **facts})
        self.record_file.unlink()  # first, as the rest means nothing without it
        shutil.rmtree(self.folder)

    def _stale(self):
        """Files of former results of this name that no new file replaces; last the sidecar, which vouches for them."""
        before = prepared.read(self.sidecar)
        stores = ["maps", *before.get("layers", [])]
        others = [self.mat.with_name(f"{self.name}_{store}.npy") for store in stores if store not in self.maps]
        return [*others, self.skipped_file, self.sidecar]

    def _write_mat(self, files, labels, kept):
        fields = {"labels": labels[kept, None].astype(np.uint32), "image_files": files[kept, None]}
        if "pooled" in self.extractor.stores:
            fields["features"] = np.load(self._draft("pooled"), mmap_mode="r").T
        if self.skipped:
            rows = np.array(sorted(self.skipped))
            fields |= {"skipped_rows": rows[:, None] + 1, "skipped_files": files[rows, None]}
        atomic.sweep(self.mat)
        with atomic.replacing(self.mat) as draft, draft.open("w+b") as file:
            scipy.io.savemat(file, fields)
            file.seek(0)
            file.write(_MAT_HEADER)

    def _write(self, stores, pictures):
        """Appends a row for each of {index: image}."""
        if not pictures:
            return
        made, finite = self.extractor(np.stack(list(pictures.values())))
        if not finite.all():
            path = self.pictures.paths[list(pictures)[np.flatnonzero(~finite)[0]]]
            dtype = self.settings["dtype"]
            raise InputError(f"{path}: its features are not finite in {dtype}; wanted other weights or another dtype")
        for store, file in stores.items():
            left = memoryview(np.ascontiguousarray(made[store])).cast("B")
            while left:  # an unbuffered file may write only a part
                left = left[file.write(left) :]

    def _look_at(self, start, stop):
        """Records the identity of the images of some rows, so that a changed image is noticed."""
        for file, path in zip(self.pictures.files[start:stop], self.pictures.paths[start:stop], strict=True):
            status = os.stat(path)
            self.seen.update(f"{file}\0{status.st_size}\0{status.st_mtime_ns}\n".encode())

    def _save(self, stores):
        """Records what is done, after it is on the disk."""
        for file in stores.values():
            os.fdatasync(file.fileno())
        record = {"done": self.done, "skipped": self.skipped, "pictures": self.seen.hexdigest()}
        atomic.write_json(self.record_file, {**record, "settings": self.settings})
        self.recorded = self.done

    def _draft(self, store):
        return self.folder / f"{store}.npy"

    def _header(self, store, rows):
        """The first bytes of a .npy file; their number does not depend on that of the rows."""
        shape, dtype = self.extractor.stores[store]
        header = io.BytesIO()
        described = {"descr": dtype.str, "fortran_order": False, "shape": (rows, *shape)}
        np.lib.format.write_array_header_1_0(header, described)
        return header.getvalue()

    def _row_bytes(self, store):
        shape, dtype = self.extractor.stores[store]
        return math.prod(shape) * dtype.itemsize

    def _size(self, store):
        """Bytes of the header and of the whole rows of a store."""
        return len(self._header(store, 0)) + (self.done - len(self.skipped)) * self._row_bytes(store)

    def _opened(self, store):
        """The file of a store, positioned at the end of its whole rows and cut off there."""
        file = self._draft(store).open("r+b" if self.done else "wb", buffering=0)
        file.truncate(self._size(store))
        file.seek(0, os.SEEK_END)
        return file

    def _close(self, store, rows):
        """Writes the header of a full store, unless it is in its place already."""
        if self._draft(store).exists():
            with self._draft(store).open("r+b") as file:
                file.write(self._header(store, rows))
                file.flush()
                os.fsync(file.fileno())


def _require_different(argument, values, known=None):
    """Refuses a value that stands twice among `values`, or is not `known`."""
    for place, value in enumerate(values):
        if known is not None and value not in known:
            raise InputError(f"{argument}: got {value!r}; {did_you_mean(value, known, every=True)}")
        if value in values[:place]:
            raise InputError(f"{argument}: got {value} twice; wanted each once")


def _digest(text):
    return hashlib.sha256(text.encode()).hexdigest()
