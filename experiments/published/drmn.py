"""DRMN: the numbers that the paper prints."""

# Percent, selected on the test classes: U, S, H and, where it is printed, T.
NUMBERS = {
    "cub": {"U": 75.5, "S": 78.1, "H": 76.8, "T": 82.5},
    "sun": {"U": 54.8, "S": 39.3, "H": 45.8, "T": 66.9},
    "awa2": {"U": 66.1, "S": 77.8, "H": 71.5, "T": 74.6},
}
