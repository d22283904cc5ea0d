"""The embedded model, from data to weights; see README.md."""
