"""`aurelis-cache demo`: a web app and its model calls, cached by one engine, seen through OpenTelemetry."""
