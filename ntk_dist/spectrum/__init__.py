"""Properties of a spectrum: summary numbers, densities, and bounds."""
