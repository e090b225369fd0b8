"""DRMN: the numbers that the paper prints, and what it says of its ablations."""

# Percent, selected on the test classes: U, S, H and, where it is printed, T.
NUMBERS = {
    "cub": {"U": 75.5, "S": 78.1, "H": 76.8, "T": 82.5},
    "sun": {"U": 54.8, "S": 39.3, "H": 45.8, "T": 66.9},
    "awa2": {"U": 66.1, "S": 77.8, "H": 71.5, "T": 74.6},
}

# Sec. 4.2, Tables 2 and 3: (ahead, behind, in words[, metrics]).
CLAIMS = (
    ("dab", "baseline", "the dual attention block helps"),
    ("sit", "baseline", "the interaction of attributes helps by itself"),
    ("dab_sit", "dab", "the interaction of attributes adds to the dual attention block", "H"),
    ("global_branch", "dab_sit", "training a global branch beside it helps"),
    ("defaults", "global_branch", "the ensemble with the global branch helps", "SH"),
    ("mff", "baseline", "fusing levels helps"),
    ("aca", "baseline", "attention over channels helps"),
    ("dab", "mff", "attention over channels adds to fusing levels"),
    ("dab", "aca", "fusing levels adds to attention over channels"),
)
