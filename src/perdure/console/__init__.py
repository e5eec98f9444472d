"""Seeing what actors did: one read model, and the command line on it."""
