"""How files are written, whatever is in them."""
