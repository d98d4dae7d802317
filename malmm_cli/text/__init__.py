"""Text for people and from them: the words of messages, times."""
