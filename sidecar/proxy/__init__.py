"""What happens to one request, in order. ``handler`` shows the order; every other file is one step."""
