"""A call between two people: sources, sinks, signalling client, session."""
