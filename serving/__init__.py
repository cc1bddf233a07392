"""HTTP serving: predictions, recommendations, records and web pages for the customers of one shop."""
