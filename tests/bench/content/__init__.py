"""What of graphs, messages and values goes over the wire, counted at the server and at the client's connections."""
