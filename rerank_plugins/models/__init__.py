"""Models by name: the catalog, and loading from the package, a folder or the Hub."""
