"""Renderers, a room for each backend, and what they share: frames, rays, stacked copies, scratch folders.

A backend is imported when its renderer is opened. Nothing is exported here, so that the rooms stay apart.
"""
