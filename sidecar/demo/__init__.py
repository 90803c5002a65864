"""
A stand-in for AI providers. It shares no code with the dialects, so each is a check of the other.

With it people can try the sidecar without an API key, and tests need no provider. Each answer says that it is canned.
"""
