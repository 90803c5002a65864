"""Makes the key of an answer out of a request; two requests have one key only where they ask the same."""
