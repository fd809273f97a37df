"""Numbered migrations; `edge.store.database` runs them. A released one is never edited."""
