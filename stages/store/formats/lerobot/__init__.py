"""What LeRobot's versions share: a piece's content, datasets on disk and their checks. Each version has its own folder.

Nothing is exported: these are parts for the formats beside.
"""
