"""The torch networks: paper and lite families, segmenter."""
