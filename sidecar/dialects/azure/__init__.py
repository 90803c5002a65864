"""The APIs of Azure's AI services."""
