"""Metrics of class scores, their uncertainty, and the choice of gamma. Needs numpy only."""
