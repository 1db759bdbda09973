"""Working a plan off: which stage runs when, where, and how often it is tried."""
