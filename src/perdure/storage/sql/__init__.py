"""Settling writes and reading in SQL, for every database that perdure keeps actors in."""
