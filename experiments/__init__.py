"""Research on top of the library: papers' numbers and ablations, claims on validation classes, and timings."""
