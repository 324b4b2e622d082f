"""Data drops: folders that arrive in an inbox become runs, each exactly once."""
