"""Reading: from planned ids to bytes, and from bytes to values."""
