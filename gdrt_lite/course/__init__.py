"""What the notebooks of the course share."""
