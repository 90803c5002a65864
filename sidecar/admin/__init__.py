"""Serves those who run the sidecar (kubelet, Prometheus, people), on ports that callers don't use."""
