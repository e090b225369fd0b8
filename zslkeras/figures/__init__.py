"""What is drawn of a run, and the drawing."""
