"""What HTTP header fields, waits, events and error bodies say."""
