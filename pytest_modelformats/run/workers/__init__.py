"""The process border: one worker process per (environment, runtime)."""
