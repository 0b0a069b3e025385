"""Categories from names: of nodes in mesh files, and of 3D-FRONT's models and surfaces."""

from __future__ import annotations

import re

from nimbusd.stages.categories import CATEGORIES

# First match wins, so what is said more exactly stands first ("bed end stool" is no bed, "floor lamp" no floor).
# Patterns are searched in the name's lower-case words with one space between them.
_RULES: tuple[tuple[str, str], ...] = (
    (r"\b(ceiling|pendant) (lamp|light)s?\b|chandelier", "ceiling_lamp"),
    (r"\b(lamp|lantern|sconce)s?\b|\blights?\b(?! band)", "lamp"),
    (r"portrait|\b(picture|painting|photo|poster)s?\b", "picture"),
    (r"base ?board|skirting", "baseboard"),
    (r"washing machine|\bwasher\b", "washing_machine"),
    (r"\bshower", "shower"),
    (r"\b(tv|television) (stand|cabinet|unit|bench|table)", "tv_stand"),
    (r"\b(tv|television)s?\b", "tv"),
    (r"night ?stand|bedside", "nightstand"),
    (r"stool|ottoman|\bpouf\b", "stool"),
    (r"bath ?tub", "bathtub"),
    (r"arm ?chair", "armchair"),
    (r"chair", "chair"),
    (r"(coffee|tea) ?table", "coffee_table"),
    (r"(dining|kitchen) ?table", "dining_table"),
    (r"dressing table|desk", "desk"),
    (r"stove|cooker|cook ?top|cooking bench|\b(hob|oven)\b", "stove"),
    (r"kitchen (counter|cabinet|island)|counter ?top", "kitchen_counter"),
    (r"book ?(case|shel|cabinet)", "bookshelf"),
    (r"\bbooks?\b", "book"),
    (r"wardrobe|armoire|closet", "wardrobe"),
    (r"dresser|drawer", "dresser"),
    (r"sideboard|side cabinet|console|cabinet|cupboard", "cabinet"),
    (r"sofa|couch|love ?seat", "sofa"),
    (r"pillow|cushion", "pillow"),
    (r"\bbeds?\b|mattress", "bed"),
    (r"curtain|drape|\bblinds?\b", "curtain"),
    (r"\b(rug|mat)s?\b|carpet", "rug"),
    (r"\bmirrors?\b", "mirror"),
    (r"wash ?basin", "washbasin"),
    (r"\bsinks?\b", "sink"),
    (r"toilet|closestool", "toilet"),
    (r"refrigerator|fridge", "refrigerator"),
    (r"radiator", "radiator"),
    (r"\bbench", "bench"),
    (r"\bshel(f|ves)\b|\brack\b", "shelf"),
    (r"table\b", "table"),
    (r"plant|flower|\btrees?\b", "plant"),
    (r"\b(cup|mug)s?\b", "cup"),
    (r"\b(box|crate|carton)(es|s)?\b", "box"),
    (r"stair", "stairs"),
    (r"\b(column|pillar)s?\b", "column"),
    (r"window", "window"),
    (r"\bdoors?\b", "door"),
    (r"\bceilings?\b", "ceiling"),
    (r"\bwalls?\b", "wall"),
    (r"\b(floor|ground)\b", "floor"),
)
assert {category for _, category in _RULES} <= set(CATEGORIES)

_COMPILED = tuple((re.compile(pattern), category) for pattern, category in _RULES)


def words_of(name: str) -> list[str]:
    """Lower-case words of a name: `aws_residential_ChairA_01` → aws, residential, chair, a."""
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", " ", name)
    return [word.lower() for word in re.split(r"[^A-Za-z]+", spaced) if word]


def category_of(name: str) -> str | None:
    """The category that a name speaks of, from `CATEGORIES`; None where it names none of them."""
    text = " ".join(words_of(name))
    return next((category for pattern, category in _COMPILED if pattern.search(text)), None)


def snake_case(name: str) -> str:
    """A lower-case word for a category outside the vocabulary; `object` for a name without letters."""
    return "_".join(words_of(name)) or "object"
