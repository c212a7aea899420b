"""Models' scenes before raters, and what comes of it."""
