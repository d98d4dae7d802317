"""From a path and prompts to texts: loading, features, memory, answers."""
