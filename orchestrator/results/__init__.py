"""What a sweep leaves, for those who read it."""
