"""Estimators shared by the models: trees, regressions, calibration."""
