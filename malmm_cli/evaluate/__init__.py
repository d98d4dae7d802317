"""Scores on data sets."""
