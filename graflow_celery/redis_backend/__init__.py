"""The ports on Redis or Valkey: runs, content, channels, workers' leases."""
