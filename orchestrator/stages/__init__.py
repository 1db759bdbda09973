"""What each kind of stage computes: one module a kind, each a function from a stage to its product."""
