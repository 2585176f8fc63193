"""Interpreters with other versions installed: made once, kept, and asked."""
