"""Wavefront: .obj files and their material libraries as parts."""
