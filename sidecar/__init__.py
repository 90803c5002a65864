"""Sidecar: the proxy beside every application pod that makes AI traffic cheap, fast and dependable."""

__version__ = "0.1.0"
