"""What was asked of a run, and what this machine is."""
