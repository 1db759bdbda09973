"""The parts of which every kind of stage is made: its parameters, its place in a plan, the cells that it fills."""
