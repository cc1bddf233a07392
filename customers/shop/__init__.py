"""One retailer's settings, money, times, merchandising rules and errors."""
