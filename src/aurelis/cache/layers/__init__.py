"""Places where entries are kept."""
