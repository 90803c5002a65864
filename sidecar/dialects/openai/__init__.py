"""The API of OpenAI, and of services that speak it."""
