"""Data, losses and loops that train the networks, fit the tables and export them."""
