"""glTF 2.0: documents, primitives and materials as parts."""
