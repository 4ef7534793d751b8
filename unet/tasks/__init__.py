"""What differs by task: cells, classes, nuclei."""
