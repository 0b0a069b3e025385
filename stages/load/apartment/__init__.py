"""Furnished apartments, made up from a seed: floor plans, furniture, layouts, materials."""

from nimbusd.stages.load.apartment.loader import ApartmentLoader

__all__ = ["ApartmentLoader"]
