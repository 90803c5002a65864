"""Long-running operations: callers get ids of ours, the sidecar polls, and results are answers like others."""
