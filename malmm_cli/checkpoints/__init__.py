"""Folders of weights: their layout and their tensors."""
