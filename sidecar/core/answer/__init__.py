"""What an answer says of itself, and what stands in for one."""
