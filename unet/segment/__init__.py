"""From probability to objects: walls, watershed, numbering."""
