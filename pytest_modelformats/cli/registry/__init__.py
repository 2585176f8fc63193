"""A model registry on disk: which artifacts go into it, where they are found, and how they are laid out."""
