"""Traces of jobs by OpenTelemetry (the extra `otel`): loaded only when somebody asks for them."""
