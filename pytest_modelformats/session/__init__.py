"""One run of pytest: collecting, judging, keeping and concluding."""
