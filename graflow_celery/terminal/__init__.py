"""What a run looks like while it goes on and when it has ended: on a screen, in a log, for a program, in a notebook."""
