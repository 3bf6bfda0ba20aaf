"""One SQLite file a study."""
