"""What an answer says about itself, and what takes the place of an answer."""
