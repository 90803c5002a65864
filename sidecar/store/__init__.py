"""Where answers are kept: this process's own memory, and the tiers behind it."""
