"""A spec with its model and data found, and all that is known of them before it is planned."""
