"""The APIs of Azure's AI services, as tables and pure functions."""
