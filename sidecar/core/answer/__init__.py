"""Builds what an answer says of itself, and what is answered in place of one."""
