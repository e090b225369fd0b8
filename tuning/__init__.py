"""Searches for settings, on validation classes."""
