"""Bytes from elsewhere: downloads that resume, archives unpacked safely, digests, progress."""
