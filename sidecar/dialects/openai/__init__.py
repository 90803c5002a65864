"""The API of OpenAI and of those who speak it, as tables and pure functions."""
