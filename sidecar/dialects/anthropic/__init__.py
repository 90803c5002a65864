"""The API of Anthropic, as tables and pure functions."""
