"""MSDN: the numbers that the paper prints, and what it says of its ablations."""

# Percent, selected on the test classes: U, S, H and, where it is printed, T.
NUMBERS = {
    "cub": {"U": 68.7, "S": 67.5, "H": 68.1, "T": 76.1},
    "sun": {"U": 52.2, "S": 34.2, "H": 41.3, "T": 65.8},
    "awa2": {"U": 62.0, "S": 74.5, "H": 67.7, "T": 70.1},
}

# Sec. 4.2, Table 2: (ahead, behind, in words[, metrics]).
CLAIMS = (
    ("v_to_a", "baseline", "one attention alone, regions to attributes, beats pooled features"),
    ("a_to_v", "baseline", "one attention alone, attributes to regions, beats pooled features"),
    ("v_to_a_distilled", "v_to_a", "distillation helps the branch of regions to attributes"),
    ("a_to_v_distilled", "a_to_v", "distillation helps the branch of attributes to regions", "H"),  # T falls on SUN
    ("defaults", "jsd", "the divergence alone distils less than both distances"),
    ("defaults", "l2", "the squared distance alone distils less than both distances"),
    ("defaults", "v_to_a_distilled", "both branches together beat the one of regions to attributes"),
    ("defaults", "a_to_v_distilled", "both branches together beat the one of attributes to regions"),
    ("defaults", "baseline", "MSDN beats pooled features"),
)
