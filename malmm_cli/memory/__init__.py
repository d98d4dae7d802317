"""Memory banks and the times of their slots; nothing but tensors."""
