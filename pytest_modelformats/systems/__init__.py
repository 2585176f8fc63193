"""The families of formats, converters and runtimes: one folder each, loaded by name only."""
