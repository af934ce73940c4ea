"""`aurelis-cache top`: what the caches of running processes do, in a terminal."""
