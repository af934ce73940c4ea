"""The command `aurelis-cache`: an application on top of the library and its integrations."""
