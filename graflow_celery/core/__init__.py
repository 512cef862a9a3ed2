"""The pure part: what a workflow is and what follows from each event of its run. No I/O, no clock, no dice."""
