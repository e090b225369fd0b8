"""DCEN: the numbers that the paper prints, and what it says of its ablations."""

# Percent, selected on the test classes: U, S and H; the paper reports no T.
NUMBERS = {
    "cub": {"U": 63.8, "S": 78.4, "H": 70.4},
    "awa2": {"U": 62.4, "S": 81.7, "H": 70.8},
    "apy": {"U": 37.5, "S": 61.6, "H": 46.7},
    "sun": {"U": 43.7, "S": 39.8, "H": 41.7},
}

# Tables 2 and 3, which have no T: (ahead, behind, in words, metrics).
CLAIMS = (
    ("vcm", "basic_zsl", "telling images apart helps", "UH"),
    ("masking", "vcm", "masking attributes helps", "H"),
    ("triplet", "masking", "the triplet of classes helps", "UH"),
    ("defaults", "triplet", "predicting masked attributes helps", "H"),
    ("views_crop", "views_none", "views that are cropped help", "H"),
    ("views_flip", "views_crop", "flips add to crops", "H"),
    ("views_flip", "views_grey", "grey views harm", "H"),
    ("views_flip", "views_jitter_v1", "changed colours harm", "H"),
    ("views_blur", "views_flip", "blurred views help", "H"),
    ("views_rotation_30", "views_flip", "small rotations help", "H"),
    ("views_swap_3", "views_flip", "swapping a few patches helps", "H"),
)
