"""A Hub over real HTTP, for tests that drive the real clients."""
