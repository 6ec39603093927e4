"""What makes the book: running its chapters, keeping what they measured, drawing it, and holding it against the papers."""
