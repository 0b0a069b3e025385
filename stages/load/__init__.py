"""Loaders and the randomizer: scenes from files, a room for each kind, and made-up apartments.

What they share lies beside the rooms: names and categories, lamps, textures, places for furniture, hashes of files.
Nothing is exported here: a loader that a job does not name need not be imported.
"""
