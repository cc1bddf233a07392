"""Features of customer-offer pairs."""
