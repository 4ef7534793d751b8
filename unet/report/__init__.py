"""What people look at: pictures and words, by task."""
