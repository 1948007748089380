"""The server of the Model Context Protocol, asked by the protocol's own client."""
