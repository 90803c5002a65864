"""Credentials that regions supply."""
