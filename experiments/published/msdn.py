"""MSDN: the numbers that the paper prints."""

# Percent, selected on the test classes: U, S, H and, where it is printed, T.
NUMBERS = {
    "cub": {"U": 68.7, "S": 67.5, "H": 68.1, "T": 76.1},
    "sun": {"U": 52.2, "S": 34.2, "H": 41.3, "T": 65.8},
    "awa2": {"U": 62.0, "S": 74.5, "H": 67.7, "T": 70.1},
}
