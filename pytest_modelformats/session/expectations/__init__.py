"""Known failures: read, watched and updated."""
