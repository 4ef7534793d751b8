"""From probabilities to objects: walls, watershed, numbering."""
