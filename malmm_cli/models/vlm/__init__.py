"""Vision-language models behind a bank of whole slots; an adapter for each architecture."""
