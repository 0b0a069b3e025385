"""Mesh files: .obj, .gltf, .glb and .ply as parts, and the loader of a scene that is one.

Nothing is exported here: `load.mend` works on parts, and the loader of this room on what `load.mend` does.
"""
