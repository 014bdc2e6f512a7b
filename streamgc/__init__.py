"""StreamGC: video calls at a few kilobits a second, by selective generative compression over WebRTC."""

__version__ = "0.1.0"
