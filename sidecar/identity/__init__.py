"""Reads and renews credentials, keys and secrets; nothing that it says to people shows one."""
