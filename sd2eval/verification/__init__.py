"""Is every file of a run folder what was written, and if not, how is just that made again?"""
