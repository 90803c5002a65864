"""Decides which answers are looked up, kept, served, purged and dropped."""
