"""Sweeps from programs: plans, runs, results with pictures, and what notebooks show of them."""
