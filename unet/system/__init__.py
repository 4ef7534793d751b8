"""What talks to the operating system: signals, worker processes, locks, installing."""
