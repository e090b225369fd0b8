"""DCEN: the numbers that the paper prints."""

# Percent, selected on the test classes: U, S and H; the paper reports no T.
NUMBERS = {
    "cub": {"U": 63.8, "S": 78.4, "H": 70.4},
    "awa2": {"U": 62.4, "S": 81.7, "H": 70.8},
    "apy": {"U": 37.5, "S": 61.6, "H": 46.7},
    "sun": {"U": 43.7, "S": 39.8, "H": 41.7},
}
