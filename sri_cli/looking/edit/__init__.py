"""Scenes changed slot by slot."""
