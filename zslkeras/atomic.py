"""Files that are whole or not there: written under another name, then renamed."""

import contextlib
import os
import uuid


@contextlib.contextmanager
def replacing(path):
    """Yields the draft of `path` to write to; it takes the place of `path` at the end, or goes if anything fails.

    A draft has a name of its own, so of two processes that write the same file either may win. One that is killed
    leaves its draft behind: `sweep` takes those away.
    """
    draft = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        yield draft
        os.replace(draft, path)
    finally:
        draft.unlink(missing_ok=True)


def sweep(path):
    """Removes drafts of `path` that killed processes left."""
    for draft in path.parent.glob(f".{path.name}.*"):
        draft.unlink(missing_ok=True)
