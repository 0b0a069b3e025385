"""PLY: headers, tables of values and polygons as parts."""
