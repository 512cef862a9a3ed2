"""The shell commands. `main` is their door and stays light: every command is loaded when it is called."""
