"""Writing and naming files, whatever is in them."""
