"""A progress line: a bar that redraws itself on a terminal, or an occasional line in a log."""

import sys
import time

_LOG_SECONDS = 20
_REDRAW_SECONDS = 0.2


class Progress:
    """`with Progress("tune, seed 0", total) as bar: bar.advance(1, "H 41.2")`."""

    def __init__(self, title, total, done=0, stream=None):
        self.title, self.total, self.start, self.done = title, total, done, done
        self.stream = stream or sys.stderr
        self.note = ""

    def __enter__(self):
        self.began = self.drawn = time.monotonic()
        return self

    def __exit__(self, *_):
        self._draw()
        if self.stream.isatty():
            print(file=self.stream)

    def advance(self, count=1, note=None):
        self.done += count
        self.note = self.note if note is None else note
        if time.monotonic() - self.drawn > (_REDRAW_SECONDS if self.stream.isatty() else _LOG_SECONDS):
            self._draw()

    def _draw(self):
        self.drawn = now = time.monotonic()
        spent, made = now - self.began, self.done - self.start
        left = spent / made * (self.total - self.done) if made else 0.0
        line = f"{self.title}: {self.done}/{self.total} in {spent:.0f} s, {left:.0f} s left  {self.note}"
        if self.stream.isatty():
            filled = round(24 * self.done / max(1, self.total))
            print(f"\r[{'=' * filled:<24}] {line}\x1b[K", end="", file=self.stream, flush=True)
        else:
            print(line, file=self.stream, flush=True)
