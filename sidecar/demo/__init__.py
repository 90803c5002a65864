"""
A stand-in AI provider that shares no code with the dialects, so that one can prove the other.

It is for trying the sidecar without a key, and for its tests. Everything it says is plainly canned.
"""
