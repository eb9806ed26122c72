"""What can be known to go wrong with an experiment, found before its first job."""
