"""How time and memory grow with the size of a graph, a group, a chain and a run."""
