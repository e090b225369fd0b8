"""The figures of a run: what they show (`of_run`), and how they are drawn (`plots`)."""
