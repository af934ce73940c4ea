"""The transports against real servers: both libraries, with and without an event loop."""
