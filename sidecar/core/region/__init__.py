"""Judges which regions are well, and in which order they are asked."""
