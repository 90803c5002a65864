"""One fetch for one key in this process, and the readers of its one answer. No sockets."""
