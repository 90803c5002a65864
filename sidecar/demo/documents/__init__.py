"""
A stand-in for Azure's document services shares no code with the dialects, so each is a check of the other.

It speaks Document Intelligence (v4 and v3.1), Content Understanding, Vision Read 3.2 and the jobs of Language, as they
were recorded: a call starts an analysis, and polls ask for its result.
"""
