"""
A stand-in AI provider, for trying the sidecar without a key and for its tests.

The rule: it shares no code with the sidecar's dialects, so that one can prove the other, and everything it says is
plainly canned.
"""
