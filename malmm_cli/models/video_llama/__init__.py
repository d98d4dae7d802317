"""Video-LLaMA (EMNLP 2023 demo): a language model that sees per-frame tokens and hears clips."""
