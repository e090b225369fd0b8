"""The command `zslkeras`, with one module per subcommand."""
