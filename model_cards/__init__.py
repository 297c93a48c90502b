"""Model cards, filled from measured results and from what a checkpoint's config says of itself."""
