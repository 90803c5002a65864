"""One call on its way to a region: which region, which attempt, and when its answer counts."""
