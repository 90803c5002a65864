"""Servers for those who run the sidecar: kubelet and Prometheus."""
