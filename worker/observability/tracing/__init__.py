"""Traces of jobs with OpenTelemetry (the extra `otel`), which is imported only when traces are requested."""
