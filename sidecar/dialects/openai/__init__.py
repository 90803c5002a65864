"""The API of OpenAI, and of those who speak it."""
