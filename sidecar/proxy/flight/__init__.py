"""One key has one fetch at a time in this process, and its one answer any number of readers; no sockets."""
