"""Servers for those who run the sidecar: kubelet and Prometheus, and people with the commands that act on it."""
