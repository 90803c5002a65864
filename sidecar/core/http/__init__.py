"""What HTTP header fields, waiting times, events and error bodies mean."""
