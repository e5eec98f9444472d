"""Keeping actors running: pure decisions, and the sweep that adopts what dead nodes left."""
