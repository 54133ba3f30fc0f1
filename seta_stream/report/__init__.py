"""Reports: numbers, and pictures of them."""
