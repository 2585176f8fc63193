"""The history: runs in a database, trends and their steps."""
