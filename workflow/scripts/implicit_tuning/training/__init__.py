"""Fine-tuning of a base, in one process or several."""
