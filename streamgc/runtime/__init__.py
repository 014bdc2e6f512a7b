"""Run a network on what this machine has, and find the shipped models."""
