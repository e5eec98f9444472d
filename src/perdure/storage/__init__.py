"""Where actors are kept: the `Store` protocol, its implementations, encoding, the group committer."""
