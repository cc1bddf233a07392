"""HTTP layer around all endpoints: authentication, limits, problem responses, metrics."""
