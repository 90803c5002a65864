"""Turns listener: turns bytes from callers into requests, and answers into bytes."""
