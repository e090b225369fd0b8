"""Searches for settings, on validation classes."""

import experiments  # noqa: F401  imports TensorFlow first, without its notes
