"""What the site says that the code knows."""
