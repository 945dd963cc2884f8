"""Tolerances measured on one's own bundle and machine, instead of taken on trust."""

from harness.calibration.calibrate import Calibration, CalibrationRequest, calibrate

__all__ = ["Calibration", "CalibrationRequest", "calibrate"]
