"""Builds the program, starts it, changes it and stops it. No request passes through here."""
