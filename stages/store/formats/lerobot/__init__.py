"""The part that LeRobot's versions share: a piece's content, datasets on disk and their checks.

Nothing is exported: these are parts for the formats beside.
"""
