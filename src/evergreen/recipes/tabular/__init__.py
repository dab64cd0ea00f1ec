"""Decide from a row of numbers and categories: forests, boosting, logistic regression, support vectors."""

from evergreen.recipes.tabular.options import TabularOptions
from evergreen.recipes.tabular.recipe import Tabular

__all__ = ["Tabular", "TabularOptions"]
