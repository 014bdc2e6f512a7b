"""Speed of the hot paths at three sizes each: `make bench`."""
