"""Symbols and masks to bytes and back: arithmetic coder, context tables, frame messages, files."""
