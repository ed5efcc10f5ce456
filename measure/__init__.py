"""The instruments: measuring, analysis, records and reports."""
