"""Pictures (`cryogan.report.figures`) and the HTML page (`cryogan.report.page`) of a reconstruction."""
