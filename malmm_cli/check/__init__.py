"""A published model compared with transformers' own path, and what it says of a drawn clip."""
