"""A page of Markdown about what a trained sweep found, and what it is made of."""
