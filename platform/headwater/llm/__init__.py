"""What writes answers: chat models, and the extractive reader that needs none."""
