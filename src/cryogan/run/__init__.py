"""All that knows a run and its folder."""
