"""Who is likeliest to buy a product or redeem an offer."""
