"""Results as text and plots."""
