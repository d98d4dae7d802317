"""Model folders: their layout and their tensors."""
