"""What the scripts at the top stand on, in rooms named after what they do."""
