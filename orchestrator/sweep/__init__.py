"""A spec with its model and data found, and the facts about them that planning needs."""
