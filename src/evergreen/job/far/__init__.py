"""The far side of a shared folder: what is written there, and the worker that trains from it."""
