"""The same probes against this cache for model calls and those of others: `make compare-models`."""
