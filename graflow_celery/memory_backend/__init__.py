"""The ports in memory: what `execute()` runs on in this process, and the twin that tests hold the others against."""
