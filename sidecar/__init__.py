"""The proxy beside every application pod that makes AI traffic cheap, fast and dependable; imports go down only."""

__version__ = "0.1.0"
