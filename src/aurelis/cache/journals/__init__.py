"""Journals: what was acknowledged and is not in its data store yet, kept where it outlasts the process."""
