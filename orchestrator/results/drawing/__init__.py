"""Pictures drawn: as SVG in a page, and by matplotlib for papers."""
