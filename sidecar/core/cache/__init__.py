"""Which answers are looked up, kept, served, purged and dropped."""
