"""ASPN: the numbers that the paper prints, and what it says of its ablations."""

# Percent, selected on the test classes: U, S, H and, where it is printed, T.
NUMBERS = {
    "awa1": {"U": 58.0, "S": 85.7, "H": 69.2, "T": 75.4},
    "awa2": {"U": 46.2, "S": 87.0, "H": 60.4, "T": 73.3},
    "cub": {"U": 50.7, "S": 61.5, "H": 55.6, "T": 73.4},  # 1024-d sentence embeddings: --splits sent_splits
    "flo": {"U": 67.3, "S": 87.4, "H": 76.0, "T": 78.1},
}

# Sec. 4.2.1, Fig. 3 (a) and (b): (ahead, behind, in words, metrics).
CLAIMS = (
    ("spn", "baseline", "preserving semantics helps", "TU"),
    ("defaults", "spn", "attention over categories helps", "TU"),
    ("defaults", "baseline", "ASPN beats the generator with its prototype loss alone", "TU"),
)
