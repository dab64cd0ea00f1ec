"""Tell what is meant: a text in, an intent out, or that it is none of those known."""

from evergreen.recipes.intent.options import IntentOptions
from evergreen.recipes.intent.recipe import Intent

__all__ = ["Intent", "IntentOptions"]
