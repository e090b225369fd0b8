"""The files that both readers read: MATLAB variables, and features, maps and levels named after their extractor.

Files come from strangers. No pickle is loaded, no link out of a file is followed, and any failure of a parser on a
damaged file becomes one sentence that names the file.
"""

import collections
import dataclasses
import glob
import os
import pathlib
import shlex
import struct

import h5py
import numpy as np
import scipy.io

from zslkeras import atomic
from zslkeras.errors import InputError, brief, quoted
from zslkeras.images import prepared

DEFAULT_FEATURES = "res101"
# Cell arrays of strings; every other field is a numeric matrix.
_TEXTS = ("allclasses_names", "image_files", "skipped_files")
_MOST_DEFLATED = 1100  # deflate shrinks at most 1032 times


@dataclasses.dataclass(frozen=True)
class Pictures:
    """The images of a benchmark in the order of its rows, to make features of.

    Attributes:
        folder: where its files are and its features go.
        files: N names, for image_files.
        paths: N files.
        labels: [N] class numbers from 1, as the field counts them.
        notes: sentences that the user should read once.
    """

    folder: pathlib.Path
    files: tuple[str, ...]
    paths: tuple[str, ...]
    labels: np.ndarray
    notes: tuple[str, ...] = ()


def is_path(dataset):
    """Whether a dataset is named by its path: it has a slash, or is "." or ".."."""
    return os.sep in dataset or dataset in (os.curdir, os.pardir)


def plain_name(argument, value):
    """Returns the name; refuses one that could reach outside the dataset's folder."""
    if not isinstance(value, str) or not value or set(value) & set("/\\\0"):
        raise InputError(f"{argument}: got {value!r}; wanted a name, without a path separator")
    return value


def read_mat(path, required, optional=()):
    """Reads fields of a MATLAB v5 or v7.3 file.

    Args:
        path: the file.
        required: names of fields that must be there.
        optional: names of fields that the result leaves out if the file has none.

    Returns:
        A dict of matrices, shaped as MATLAB shows them, and of lists of strings for cell arrays of strings.
    """
    fields = _open_mat(path, lambda reader: reader.read([*required, *optional]))
    for name in required:
        if name not in fields:
            holds = ", ".join(_field_names(path)) or "nothing"
            raise InputError(f"{path}: no field {name}; it holds {holds}; wanted {', '.join(required)}")
    # MATLAB writes what it does not know as [].
    fields = {name: value for name, value in fields.items() if name in required or np.size(value)}
    for name, value in fields.items():
        if name in _TEXTS:
            continue
        if not isinstance(value, np.ndarray) or value.ndim != 2 or value.dtype.kind not in "iufb" or not value.size:
            got = f"{value.dtype} {value.shape}" if isinstance(value, np.ndarray) else type(value).__name__
            raise InputError(f"{path}: {name} is {got}; wanted a matrix of numbers")
    return fields


def read_npy(path):
    """Maps a .npy file of floats into memory; nothing is read yet."""
    atomic.require_regular(path)
    try:
        array = np.lib.format.open_memmap(path, mode="r")
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except Exception as error:  # object arrays, other formats, files shorter than their header says
        raise InputError(f"{path}: cannot be read ({brief(error)}); wanted a complete .npy file of floats") from error
    if array.dtype not in (np.float16, np.float32, np.float64):
        raise InputError(f"{path}: got dtype {array.dtype}; wanted float16, float32 or float64")
    return array


def read_matrix(path, rows=None):
    """A small float32 [rows, columns] out of a .npy file."""
    array = read_npy(path)
    if array.ndim != 2 or rows not in (None, len(array)) or not array.size:
        raise InputError(f"{path}: got shape {array.shape}; wanted ({'rows' if rows is None else rows}, columns)")
    return require_finite(path, "a value", np.array(array, np.float32))


def read_lines(path, wanted):
    """The lines of a UTF-8 file that are not blank, as (line number, text without spaces around it).

    Args:
        path: the file.
        wanted: what it should hold, for the message.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read ({brief(error)}); wanted {wanted}") from error
    return [(number, line.strip()) for number, line in enumerate(lines, 1) if line.strip()]


def different(path, what, names):
    """The names as a tuple; refuses an empty name, one of several lines, and one that is there twice."""
    for name, count in collections.Counter(names).items():
        if not name.strip():
            raise InputError(f"{path}: a {what} has no name; wanted one for each")
        if name.splitlines() != [name]:
            raise InputError(f"{path}: {what} {quoted(name)} has a line break; wanted a name on one line")
        if count > 1:
            raise InputError(f"{path}: {what} {name} is there {count} times; wanted it once")
    return tuple(names)


def ids(path, field, values, high, what):
    """1-based numbers of a .mat file as 0-based ids.

    Args:
        path, field: where the numbers are, for the message.
        values: a row or a column.
        high: the largest valid number.
        what: what the numbers count, for the message.
    """
    if 1 not in values.shape:
        raise InputError(f"{path}: {field} has shape {values.shape}; wanted a single row or column")
    flat = values.ravel()
    wrong = np.flatnonzero(~((flat >= 1) & (flat <= high) & (flat == np.floor(flat))))  # NaN fails every comparison
    if len(wrong):
        raise InputError(f"{path}: {field} is {flat[wrong[0]]} at position {wrong[0] + 1}; wanted 1..{high}, {what}")
    return flat.astype(np.int64) - 1


def require_finite(path, field, matrix):
    """Returns the matrix; refuses NaN and infinity."""
    for start in range(0, len(matrix), 4096):
        wrong = np.argwhere(~np.isfinite(matrix[start : start + 4096]))
        if len(wrong):
            row, column = wrong[0]
            value = matrix[start + row, column]
            raise InputError(f"{path}: {field} is {value} at row {start + row}, column {column}; wanted finite numbers")
    return matrix


def unit_rows(matrix):
    """Rows at L2 length one; a row of zeros stays as it is, and a benchmark refuses it."""
    lengths = np.linalg.norm(matrix, axis=1, keepdims=True)
    return matrix / np.where(lengths > 0, lengths, 1)


def choose_features(folder, kind, features):
    """Settles which extractor's files to read.

    Args:
        folder: where they are.
        kind: "features", "maps" or "levels".
        features: what the user asked for, or None.

    Returns:
        The name, or None if there are no such files, and a note if neither the user nor the default named it.
    """
    if features is not None:
        return plain_name("features", features), None
    if all(path.is_file() for path in inputs_files(folder, kind, DEFAULT_FEATURES)):
        return DEFAULT_FEATURES, None
    there = _extractors(folder, kind)
    if len(there) > 1:
        raise InputError(f"features: got none, and {folder} has {kind} by {', '.join(there)}; wanted one of them")
    if there:
        return there[0], f"{kind} by {there[0]}, the only ones in {folder}"
    return None, None


def how_to_get(folder, kind, dataset):
    """The part of a sentence that says which feature files there are and how to make others."""
    there = _extractors(folder, kind) if folder.is_dir() else []
    file = {
        "features": "NAME.mat there (features [D, N], labels [N, 1], image_files [N, 1])",
        "maps": "NAME_maps.npy there (float [N, H, W, C])",
        "levels": "NAME_<layer>.npy there for each layer (float [N, H, W, C])",
    }[kind]
    what = {"maps": "pooled,maps", "levels": "pooled,levels"}.get(kind)
    command = f"zslkeras prepare --dataset {shlex.quote(dataset)} --name NAME" + (f" --what {what}" if what else "")
    return (
        (f"pass features={' or '.join(there)}, " if there else "")
        + f"run `{command}`, "
        + f"or put {file} and pass features=NAME"
    )


def inputs_files(folder, kind, features):
    """The files that hold one kind of inputs; they need not exist."""
    if kind == "features":
        return [folder / f"{features}.mat"]
    if kind == "maps":
        return [folder / f"{features}_maps.npy"]
    layers = prepared.read(folder / f"{features}.json").get("layers")
    if layers:
        return [folder / f"{features}_{plain_name(f'{features}.json: layer', layer)}.npy" for layer in layers]
    others = sorted(path for path in folder.glob("*.npy") if path.name.startswith(f"{features}_"))
    return [path for path in others if path.stem != f"{features}_maps"] or [folder / f"{features}_<layer>.npy"]


def read_inputs(folder, kind, features, rows):
    """Reads features, or opens maps or levels.

    Args:
        folder, kind, features: as for `inputs_files`, which must exist.
        rows: N, how many labels there are.

    Returns:
        The inputs as `Benchmark` wants them, and whether they are known to be finite.
    """
    paths = inputs_files(folder, kind, features)
    if kind == "features":
        matrix = read_mat(paths[0], ["features"])["features"]
        if matrix.shape[1] != rows:
            raise InputError(f"{paths[0]}: features has shape {matrix.shape}; wanted (D, {rows}), one column per label")
        with np.errstate(over="ignore"):  # values beyond float32 turn infinite, and are refused as such
            matrix = np.ascontiguousarray(matrix.T, np.float32)
        return require_finite(paths[0], "features", matrix), True
    arrays = [read_npy(path) for path in paths]
    for path, array in zip(paths, arrays, strict=True):
        if array.ndim != 4 or len(array) != rows or not array.size:
            raise InputError(f"{path}: got shape {array.shape}; wanted ({rows}, H, W, C), one row per label")
    sidecar = prepared.read(folder / f"{features}.json")
    finite = all((prepared.read(path.with_suffix(".json")) or sidecar).get("finite") is True for path in paths)
    if kind == "maps":
        return arrays[0], finite
    if not sidecar.get("layers"):
        arrays.sort(key=lambda array: array.shape[1] * array.shape[2], reverse=True)
    return tuple(arrays), finite


def records(folder, features=None):
    """{name: how they were made} of what `zslkeras prepare` made in a folder; of one name alone if it is given."""
    paths = folder.glob("*.json") if features is None else [folder / f"{features}.json"]
    found = {path.stem: prepared.read(path) for path in sorted(paths) if path.with_suffix(".mat").is_file()}
    return {name: record for name, record in found.items() if "backbone" in record}


def rows_file(folder, features):
    """The file that says what the rows are, or None: `<features>.mat`, else `labels.mat`, else any features' file."""
    names = [features, "labels"] if features else ["labels", DEFAULT_FEATURES, *_extractors(folder, "features")]
    return next((path for path in (folder / f"{name}.mat" for name in names) if path.is_file()), None)


def _extractors(folder, kind):
    """The extractors whose features, maps or levels are there; of levels only those with a sidecar."""
    if kind == "features":
        return sorted(path.stem for path in folder.glob("*.mat") if "features" in _field_names(path))
    if kind == "maps":
        return sorted(path.name.removesuffix("_maps.npy") for path in folder.glob("*_maps.npy"))
    layered = [path for path in folder.glob("*.json") if any(folder.glob(f"{glob.escape(path.stem)}_*.npy"))]
    return sorted(path.stem for path in layered if prepared.read(path).get("layers"))


def _field_names(path):
    return _open_mat(path, lambda reader: reader.names())


def _open_mat(path, ask):
    try:
        atomic.require_regular(path)
        with open(path, "rb") as stream:
            header = stream.read(128)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    if h5py.is_hdf5(path):
        reader = _Version73(path)
    elif header[126:128] in (b"IM", b"MI"):  # the byte order mark that ends a v5 header
        reader = _Version5(path)
    else:
        raise InputError(f"{path}: begins with {header[:16]!r}; wanted a MATLAB file of version 5 or 7.3")
    try:
        return ask(reader)
    except InputError:
        raise
    except Exception as error:  # scipy and h5py raise anything from zlib.error to MemoryError on a damaged file
        raise InputError(f"{path}: truncated or damaged ({brief(error)}); wanted a complete MATLAB file") from error


class _Version5:
    def __init__(self, path):
        self.path = path

    def names(self):
        return [name for name, _, _ in scipy.io.whosmat(self.path)]

    def read(self, names):
        self._require_whole()
        loaded = scipy.io.loadmat(self.path, variable_names=list(names))
        return {name: self._value(name, loaded[name]) for name in names if name in loaded}

    def _require_whole(self):
        """Refuses a file that ends within a variable: scipy skips those that it does not read."""
        size = os.path.getsize(self.path)
        with open(self.path, "rb") as file:
            order = {b"IM": "<", b"MI": ">"}[file.read(128)[126:]]
            while (place := file.tell()) < size:
                head = file.read(8)
                length = struct.unpack(f"{order}I", head[4:])[0] if len(head) == 8 else size
                if (end := place + 8 + length) > size:
                    raise InputError(f"{self.path}: truncated or damaged; wanted {end - size:,} bytes more")
                file.seek(end)

    def _value(self, name, value):
        if name not in _TEXTS:
            return value
        if not isinstance(value, np.ndarray) or value.dtype.kind not in "OU":
            raise InputError(f"{self.path}: {name} is no cell array; wanted one of strings")
        return [self._text(name, item) for item in value.flat]

    def _text(self, name, item):
        while isinstance(item, np.ndarray) and item.size == 1:
            item = item.flat[0]
        if not isinstance(item, str):
            raise InputError(f"{self.path}: {name} holds {item!r:.40}; wanted strings")
        return str(item)


class _Version73:
    """HDF5, which has MATLAB's matrices transposed and a cell array of strings as a table of references."""

    def __init__(self, path):
        self.path = path

    def names(self):
        with h5py.File(self.path, "r") as file:
            return [name for name in file if not name.startswith("#")]

    def read(self, names):
        with h5py.File(self.path, "r") as file:
            return {name: self._value(file, name) for name in names if file.get(name, getlink=True) is not None}

    def _value(self, file, name):
        # Asked of the link itself: opening a soft or external one would already leave this file.
        if not isinstance(file.get(name, getlink=True), h5py.HardLink):
            raise InputError(f"{self.path}: {name} is a link to other data; wanted the data itself")
        dataset = self._own(name, file[name])
        if dataset.attrs.get("MATLAB_empty", 0):  # it then holds the shape of an empty matrix
            return np.empty((0, 0))
        if name not in _TEXTS:
            return dataset[()].T
        if h5py.check_ref_dtype(dataset.dtype) is not h5py.Reference:
            raise InputError(f"{self.path}: {name} is no cell array; wanted one of strings")
        return [self._text(name, file[reference]) for reference in dataset[()].T.flat]

    def _text(self, name, item):
        characters = self._own(name, item)[()]
        if characters.dtype != np.uint16:
            raise InputError(f"{self.path}: {name} holds {characters.dtype}; wanted strings")
        return characters.tobytes().decode("utf-16")

    def _own(self, name, dataset):
        if not isinstance(dataset, h5py.Dataset):
            raise InputError(f"{self.path}: {name} is a {type(dataset).__name__}; wanted a matrix")
        if dataset.is_virtual or dataset.external:
            raise InputError(f"{self.path}: {name} is stored in another file; wanted the data itself")
        if dataset.nbytes > _MOST_DEFLATED * os.path.getsize(self.path):
            raise InputError(f"{self.path}: {name} claims {dataset.nbytes:,} bytes; wanted no more than fits the file")
        return dataset
