"""A protocol of recipes, seeds and data: its file, its runs, its table."""
