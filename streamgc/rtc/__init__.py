"""Carry frame messages over WebRTC: payload, codec registration, feedback, impairments."""
