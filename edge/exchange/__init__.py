"""Formats others read and write: EDF+, WFDB, FHIR, CSV."""
