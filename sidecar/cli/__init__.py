"""The command line: one command a file, and a file imports only what its command needs."""
