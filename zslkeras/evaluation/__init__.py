"""What scores are worth, how far to trust it, and how gamma is chosen. numpy only."""
