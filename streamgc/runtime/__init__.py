"""Run a network, and find the shipped ones: engines, their backends and the model store. Never imports torch."""
