"""Product lists for customers: ranked under merchandising rules, with the evidence for each product."""
