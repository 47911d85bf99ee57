"""Rounding that looks at data: the error of each column is made up for by the columns after it."""

from edgerazor.calibrate.pack import calibrate_source, pack_calibrated
from edgerazor.calibrate.start import start_calibrated

__all__ = ["calibrate_source", "pack_calibrated", "start_calibrated"]
