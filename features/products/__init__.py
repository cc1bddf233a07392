"""Features of products: prices, weekly sales, co-purchases."""
