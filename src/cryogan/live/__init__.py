"""Following a data collection: particles as they come, a map again and again, and what each portion is worth."""
