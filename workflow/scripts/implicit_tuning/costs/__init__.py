"""What an experiment will take, told before it runs: time, disk, calls and money."""
