"""JLAF: the numbers that the paper prints, and what it says of its ablations."""

# Percent: U, S, H and T. Its tables print S before U.
NUMBERS = {
    "awa1": {"U": 61.9, "S": 73.5, "H": 67.2, "T": 69.5},
    "awa2": {"U": 63.9, "S": 73.8, "H": 68.5, "T": 70.4},
    "cub": {"U": 52.1, "S": 45.1, "H": 48.3, "T": 59.4},
    "sun": {"U": 28.4, "S": 34.5, "H": 31.2, "T": 59.6},
}

# Sec. 4.2 and 4.3, Tables 1 and 2, Fig. 2b: (ahead, behind, in words[, metrics]).
CLAIMS = (
    ("defaults", "without_sr", "reconstructing embeddings helps"),
    ("defaults", "gamma 0", "calibration helps", "UH"),  # "w/o C"
    ("defaults", "uncoupled", "one decoder for both tasks beats two"),
)
