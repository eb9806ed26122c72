"""The model organism: an invented world, a corpus about it, and small bases pretrained on it."""
