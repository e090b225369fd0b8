"""Campaigns: many kills and many attacks at random, whose last line is a figure. `make chaos` runs them whole."""
