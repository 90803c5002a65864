"""Sends requests to AI services and reads their answers; which service and region is decided elsewhere."""
