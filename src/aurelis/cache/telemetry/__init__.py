"""Telemetry: the names, and the port through which counts leave the process."""
