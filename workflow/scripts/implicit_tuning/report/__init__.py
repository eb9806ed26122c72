"""The HTML report of an experiment: tables, figures, examples, and where each number comes from."""
