"""Golden bundles: inputs and outputs that were stored, as a source without a model."""
