"""Is run B better than run A, and how sure are we?"""
