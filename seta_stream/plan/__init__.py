"""Plans: from a selection to who reads which samples, when. Pure."""
