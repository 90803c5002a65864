"""The listener: from bytes of callers to requests, and from answers to bytes."""
