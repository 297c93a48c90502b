"""The command line: one module per command, imported without torch; what a command needs it imports when it runs."""
