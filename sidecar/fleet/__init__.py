"""What pods tell each other over Redis; where it is away each pod goes on alone."""
