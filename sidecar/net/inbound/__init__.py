"""Turns the bytes of callers into requests, and answers into bytes."""
