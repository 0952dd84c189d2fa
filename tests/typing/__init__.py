"""Programs that mypy must accept, and lines that it must reject; run by nobody."""
