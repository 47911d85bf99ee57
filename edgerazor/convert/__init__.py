"""Recipes from configuration files of the original EdgeRazor release 1.3.5 (METHOD 10)."""

from edgerazor.convert.conversion import ConversionResult, convert_file, convert_recipe

__all__ = ["ConversionResult", "convert_file", "convert_recipe"]
