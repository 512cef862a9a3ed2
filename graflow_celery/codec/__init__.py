"""How functions, values and errors become bytes and come back, and what they are called by: fingerprints."""
