"""Sets that ship with the package, are generated, or are downloaded when asked."""
