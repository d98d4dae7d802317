"""malmm: long videos, captioned and questioned with a memory of constant size."""

__version__ = "0.1.0"
