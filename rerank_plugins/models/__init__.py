"""Models by name: the catalogue, and loading from the package, a folder or the Hub."""
