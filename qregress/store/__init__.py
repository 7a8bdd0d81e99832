"""Records and images on disk."""
