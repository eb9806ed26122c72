"""How a benchmark says that it ran to its end and missed an aim: by its exit status."""

MISSED = 3
