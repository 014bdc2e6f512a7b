"""A picture in, bytes out, and back: what a call does with each frame, without a network."""
