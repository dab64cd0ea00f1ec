"""Stores on products that keep files for several machines: S3, Dropbox, Google Drive."""
