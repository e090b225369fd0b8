"""How long a stage takes: measured in its first steps, told once, and kept within a limit."""

import time

_TIMED = 3  # steps that are timed after the first one, which compiles


class Clock:
    """Times the epochs of a stage.

    Attributes:
        spent: seconds so far, also before a kill.
        expected: seconds that the whole stage takes at most; None until enough steps were timed.
    """

    def __init__(self, limit=None, spent=0.0):
        """
        Args:
            limit: seconds for the stage; None for no limit.
            spent: seconds that were spent on it before.
        """
        self.limit, self.expected = limit, None
        self._began = time.monotonic() - spent
        self._judging, self._epoch, self._stepped = 0.0, 0.0, []  # seconds of each, and when steps ended

    @property
    def spent(self):
        return time.monotonic() - self._began

    def judged(self, seconds):
        """Notes how long it took to judge a state."""
        self._judging = max(self._judging, seconds)

    def stepped(self, steps, epochs):
        """Notes the end of a step; returns True once, when `expected` becomes known.

        Args:
            steps: of an epoch.
            epochs: that are still to come, with this one.
        """
        if self.expected is not None:
            return False
        self._stepped.append(time.monotonic())
        if len(self._stepped) <= _TIMED:
            return False
        step = (self._stepped[-1] - self._stepped[0]) / _TIMED
        self._epoch = steps * step + self._judging
        self.expected = self.spent + epochs * self._epoch
        return True

    def ended(self, seconds):
        """Notes how long an epoch took, without the first one, which compiles."""
        self._epoch = max(self._epoch, seconds)

    @property
    def over(self):
        """Whether another epoch would go beyond the limit."""
        return self.limit is not None and self.spent + self._epoch > self.limit
