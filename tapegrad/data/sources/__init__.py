"""Where data comes from: files, folders, the network, compressed files and archives.

Every source has `open()`, which gives a binary stream, and `path()`, which gives a file on disk.
"""
