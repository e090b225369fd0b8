"""A finished run for those who use it: exports, their check, predictions, and a server."""
