"""Which regions work, and in which order they are asked."""
