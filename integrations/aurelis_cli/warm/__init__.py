"""`aurelis-cache warm`: sends the model calls of a file through the cache, so that their answers are there."""
