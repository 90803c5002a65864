"""Servers for operators: the health port for kubelet and Prometheus, and the admin port for commands."""
