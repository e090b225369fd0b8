"""The use of a finished run: exports and their check, predictions, and a server."""
