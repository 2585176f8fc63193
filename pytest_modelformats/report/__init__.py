"""Record lines in, HTML | Markdown | terminal out; never touches live objects."""
