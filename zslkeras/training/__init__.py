"""How models are trained: the loop, the batches, and where they run."""
