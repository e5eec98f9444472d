"""Whole systems as rows: moved between databases, and backed up."""
