"""One retailer's settings, money, time and errors."""
