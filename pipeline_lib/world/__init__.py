"""The pocket world: a procedural video world that knows its own truth (numpy only)."""
