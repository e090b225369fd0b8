"""The command `zslkeras`, a module for each of its commands."""
