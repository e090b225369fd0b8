"""JLAF: the numbers that the paper prints."""

# Percent, selected on the test classes: U, S, H and, where it is printed, T.
NUMBERS = {
    "awa1": {"U": 61.9, "S": 73.5, "H": 67.2, "T": 69.5},
    "awa2": {"U": 63.9, "S": 73.8, "H": 68.5, "T": 70.4},
    "cub": {"U": 52.1, "S": 45.1, "H": 48.3, "T": 59.4},  # its table prints S before U
    "sun": {"U": 28.4, "S": 34.5, "H": 31.2, "T": 59.6},
}
