"""Video-LLaMA: a video language model that also hears."""
